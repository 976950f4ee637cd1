//! Everything about one message.

use std::time::Duration;

use rusqlite::{Connection, Row};

use super::codes;
use super::reader::Segments;
use super::scan;
use crate::clock::UnixMillis;
use crate::journal::{StoredLog, StoredStatus, Story, Wait, mask};
use crate::message::MessageId;

/// Of many requests the first and the last are told.
const FIRST: i64 = 50;
const LAST: i64 = 200;

pub(super) fn story(segments: &mut Segments<'_>, id: MessageId) -> rusqlite::Result<Option<Story>> {
    for known in segments.known.clone() {
        let connection = segments.open(&known)?;
        if let Some((row, message)) = scan::find(connection, id)? {
            return Ok(Some(Story {
                message,
                statuses: statuses(connection, row)?,
                logs: logs(connection, row)?,
            }));
        }
    }
    Ok(None)
}

fn statuses(connection: &Connection, message: i64) -> rusqlite::Result<Vec<StoredStatus>> {
    let mut statement = connection.prepare_cached(
        "select n, status, at, attempt, max_attempts, retryable, reason from status_change where message = ?1
         and (n <= ?2 or n > (select max(n) from status_change where message = ?1) - ?3) order by n",
    )?;
    let rows = statement.query_map([message, FIRST, LAST], |row| {
        Ok(StoredStatus {
            number: row.get(0)?,
            status: codes::status(row.get(1)?),
            at: UnixMillis(row.get(2)?),
            attempt: row.get(3)?,
            max_attempts: row.get(4)?,
            retryable: row.get(5)?,
            reason: row.get(6)?,
        })
    })?;
    rows.collect()
}

fn logs(connection: &Connection, message: i64) -> rusqlite::Result<Vec<StoredLog>> {
    let mut statement = connection.prepare_cached(
        "select n, kind, phase, cause, round, attempt, started, duration_us, reason, node, method, url, request,
           code, response, body, truncated, error_kind, error_text, wait_ms, planned_ms, wait_flags
         from attempt where message = ?1
         and (n <= ?2 or n > (select max(n) from attempt where message = ?1) - ?3) order by n",
    )?;
    let rows = statement.query_map([message, FIRST, LAST], log)?;
    rows.collect()
}

fn log(row: &Row<'_>) -> rusqlite::Result<StoredLog> {
    let headers = |at: usize| -> rusqlite::Result<Vec<(String, String)>> {
        let text: Option<String> = row.get(at)?;
        Ok(text.map(|text| mask::from_json(&text)).unwrap_or_default())
    };
    let error: Option<String> = row.get(17)?;
    let delay: Option<i64> = row.get(19)?;
    let planned: Option<i64> = row.get(20)?;
    let flags: i64 = row.get(21)?;
    let millis = |millis: i64| Duration::from_millis(codes::unsigned(millis.max(0)));
    Ok(StoredLog {
        number: row.get(0)?,
        kind: codes::kind(row.get(1)?),
        phase: row.get(2)?,
        trigger: codes::trigger(row.get(3)?),
        round: row.get(4)?,
        attempt: row.get(5)?,
        started: UnixMillis(row.get(6)?),
        duration_us: codes::unsigned(row.get(7)?),
        reason: row.get(8)?,
        node: row.get(9)?,
        method: row.get(10)?,
        url: row.get(11)?,
        request_headers: headers(12)?,
        code: row.get(13)?,
        response_headers: headers(14)?,
        body: row.get::<_, Option<Vec<u8>>>(15)?.unwrap_or_default(),
        truncated: row.get(16)?,
        error: match error {
            Some(kind) => Some((kind, row.get::<_, Option<String>>(18)?.unwrap_or_default())),
            None => None,
        },
        wait: delay.map(|delay| Wait {
            delay: millis(delay),
            planned: millis(planned.unwrap_or(delay)),
            retry_after: flags & 1 != 0,
            parked: flags & 2 != 0,
        }),
    })
}
