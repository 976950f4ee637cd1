//! Texts that repeat, as numbers: names, addresses, headers.

use std::borrow::Cow;
use std::collections::HashMap;

use http::HeaderMap;
use rusqlite::types::ToSqlOutput;
use rusqlite::{OptionalExtension as _, ToSql, Transaction};

use crate::event::Event;
use crate::journal::mask;

/// Names that are remembered; beyond that they are looked up in the table again.
const REMEMBERED: usize = 20_000;

/// Headers that are remembered.
const HEADERS: usize = 4_096;

/// The numbers of names and of headers, as far as they are remembered.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: HashMap<Box<str>, i64>,
    /// By their key; `None`: they came once.
    headers: HashMap<u64, Option<i64>>,
    secrets: mask::Secrets,
}

impl Names {
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.headers.clear();
    }

    pub(super) fn number(
        &mut self,
        transaction: &Transaction<'_>,
        text: &str,
    ) -> rusqlite::Result<i64> {
        if let Some(number) = self.numbers.get(text) {
            return Ok(*number);
        }
        let known = transaction
            .prepare_cached("select id from name where text = ?")?
            .query_row([text], |row| row.get(0))
            .optional()?;
        let number = match known {
            Some(number) => number,
            None => {
                transaction
                    .prepare_cached("insert into name (text) values (?)")?
                    .execute([text])?;
                transaction.last_insert_rowid()
            }
        };
        if self.numbers.len() >= REMEMBERED {
            self.numbers.clear();
        }
        self.numbers.insert(text.into(), number);
        Ok(number)
    }

    /// Headers that came lately stand in the table once.
    pub(super) fn headers(
        &mut self,
        transaction: &Transaction<'_>,
        headers: &HeaderMap,
        event: Option<&Event>,
    ) -> rusqlite::Result<Text<'static>> {
        let key = self.secrets.key(headers, event);
        let known = self.headers.get(&key).copied();
        if let Some(Some(number)) = known {
            return Ok(Text::Name(number));
        }
        let json = self.secrets.json(headers, event);
        if self.headers.len() >= HEADERS {
            self.headers.clear();
        }
        // Only what comes a second time is worth a row of its own.
        let number = match known {
            Some(_) => Some(self.number(transaction, &json)?),
            None => None,
        };
        self.headers.insert(key, number);
        Ok(match number {
            Some(number) => Text::Name(number),
            None => Text::Itself(json.into()),
        })
    }
}

/// The number of a name, or a text that is none.
pub(super) enum Text<'a> {
    Name(i64),
    Itself(Cow<'a, str>),
}

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Name(number) => number.to_sql(),
            Self::Itself(text) => text.to_sql(),
        }
    }
}
