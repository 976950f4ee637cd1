//! Pages of dead letters.

use super::filter::Filter;
use super::ledger::Ledger;
use super::letter::DeadLetter;
use super::scan::Scan;
use crate::channel::Subscription;
use crate::clock::UnixMillis;
use crate::log::LogError;

/// Records that one request looks at.
const SEARCHED: usize = 20_000;

/// Which page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most so many.
    pub size: usize,
    /// Where the page before ended ([`Listing::after`]).
    pub after: Option<Vec<i64>>,
}

/// A dead letter of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The dead letter.
    pub letter: DeadLetter,
    /// Whether it was sent round again.
    pub is_sent: bool,
    /// Whether it can be.
    pub is_redrivable: bool,
}

impl Listed {
    pub(super) fn new(letter: DeadLetter, subscription: &Subscription, ledger: &Ledger) -> Self {
        Self {
            is_sent: ledger.has_sent(&letter),
            is_redrivable: letter.is_redrivable(subscription),
            letter,
        }
    }
}

/// A page of dead letters, the newest first.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The dead letters.
    pub letters: Vec<Listed>,
    /// Where the next page begins; `None`: there is none.
    pub after: Option<Vec<i64>>,
    /// When the search was ended before the page was full: how far back it came.
    pub searched_to: Option<UnixMillis>,
}

/// Collects a page from a scan with the newest first.
pub(super) async fn collect(
    scan: &mut Scan<'_>,
    subscription: &Subscription,
    filter: &Filter,
    size: usize,
    ledger: &Ledger,
) -> Result<Listing, LogError> {
    let mut letters = Vec::new();
    let mut searched = 0;
    let mut searched_to = None;
    let ended = loop {
        let Some((partition, stored)) = scan.next().await? else {
            break true;
        };
        searched += 1;
        let time = stored.time;
        let letter = DeadLetter::read(subscription, partition, stored);
        if let Some(letter) = letter.filter(|letter| filter.matches(letter)) {
            letters.push(Listed::new(letter, subscription, ledger));
        }
        if letters.len() >= size {
            break false;
        }
        if searched >= SEARCHED {
            searched_to = Some(time);
            break false;
        }
    };
    let after = if ended || scan.is_at_end() {
        None
    } else {
        Some(scan.ends())
    };
    Ok(Listing {
        letters,
        after,
        searched_to,
    })
}
