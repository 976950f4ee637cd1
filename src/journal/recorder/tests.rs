//! Guarantee 10: the journal never gates delivery and never lies.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use super::*;
use crate::journal::contract::{change, delivered};
use crate::journal::postgres::tests::Place;
use crate::journal::sqlite::{Limits, SqliteReader, Store};
use crate::journal::{Filter, KeepError, PageRequest, Reader, Status};

struct Journal {
    recorder: Recorder,
    reader: SqliteReader,
    writer: Writer,
}

fn start(store: Store, bounds: Bounds) -> Journal {
    let clock = Clock::system();
    let recorder = Recorder::new(clock, bounds, &Registry::new()).unwrap();
    let reader = store.reader(recorder.queued());
    let writer = recorder.write_to(Box::new(store)).unwrap().unwrap();
    Journal {
        recorder,
        reader,
        writer,
    }
}

fn open(path: &Path) -> Store {
    Store::open(path, "node", Limits::default()).unwrap()
}

impl Journal {
    async fn has(&self, offset: i64) -> bool {
        let id = delivered("sub", offset).key.id.to_string();
        self.reader.message(&id).await.unwrap().is_some()
    }

    fn tell(&self, offset: i64) -> Ticket {
        self.recorder.record(&mut vec![delivered("sub", offset)])
    }

    async fn took(&self, ticket: Ticket) {
        took(&self.recorder, ticket).await;
    }
}

/// Waits until the journal took everything up to `ticket`, however long that is.
async fn took(recorder: &Recorder, ticket: Ticket) {
    let mut progress = recorder.0.as_ref().unwrap().progress.subscribe();
    let took = progress.wait_for(|progress| progress.stored >= ticket && !progress.down);
    tokio::time::timeout(Duration::from_secs(30), took)
        .await
        .expect("it comes back")
        .unwrap();
}

/// A lock that another program holds on the segment that is written.
fn lock(path: &Path) -> Connection {
    let other = Connection::open(path.join("segment-000001.db")).unwrap();
    other.execute_batch("begin immediate").unwrap();
    other
}

#[tokio::test]
async fn guarantee_10_what_was_told_is_stored_when_its_ticket_is_due() {
    let directory = tempfile::tempdir().unwrap();
    let journal = start(open(directory.path()), Bounds::default());
    for offset in 0..50 {
        let ticket = journal.tell(offset);
        journal.recorder.stored(ticket).await;
        assert!(journal.has(offset).await, "{offset}");
    }
    let last = journal.tell(50);
    assert!(last > Ticket(50));
    journal
        .recorder
        .close(journal.writer, Duration::from_secs(10))
        .await;
    assert_eq!(
        journal.reader.reach().await.unwrap().messages,
        51,
        "the end writes what is left"
    );
}

#[tokio::test]
async fn guarantee_10_a_locked_journal_stops_nobody_and_catches_up() {
    let directory = tempfile::tempdir().unwrap();
    let journal = start(open(directory.path()), Bounds::default());
    let lock = lock(directory.path());
    let began = Instant::now();
    let first = journal.tell(0);
    journal.recorder.stored(first).await;
    assert!(
        began.elapsed() < PATIENCE * 4,
        "a commit waits for {PATIENCE:?} at most"
    );
    let began = Instant::now();
    for offset in 1..100 {
        let ticket = journal.tell(offset);
        journal.recorder.stored(ticket).await;
    }
    assert!(
        began.elapsed() < PATIENCE,
        "who is known to be down is not waited for"
    );
    assert!(!journal.recorder.is_crowded());
    drop(lock);
    let last = journal.tell(100);
    journal.took(last).await;
    assert!(journal.has(0).await && journal.has(100).await);
    assert_eq!(
        journal.reader.reach().await.unwrap().gaps,
        [],
        "nothing is missing"
    );
}

#[tokio::test]
async fn guarantee_10_what_finds_no_room_is_a_gap_that_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        changes: 10,
        ..Bounds::default()
    };
    let journal = start(open(directory.path()), bounds);
    let lock = lock(directory.path());
    let first = journal.tell(0);
    journal.recorder.stored(first).await;
    for offset in 1..=25 {
        journal.tell(offset);
    }
    let shared = journal.recorder.0.clone().unwrap();
    assert!(shared.lock().changes.len() <= 10, "the queue has a bound");
    let lost = shared.lost.get();
    assert!(lost >= 15, "{lost}");
    drop(lock);
    let last = journal
        .recorder
        .record(&mut vec![change("sub", 30, 1, Status::Delivered, None)]);
    journal.took(last).await;
    journal
        .recorder
        .close(journal.writer, Duration::from_secs(10))
        .await;
    let gaps = journal.reader.reach().await.unwrap().gaps;
    assert_eq!(
        gaps.iter().map(|gap| gap.changes).sum::<u64>(),
        shared.lost.get()
    );
    assert!(gaps[0].to >= Some(gaps[0].from));
}

#[tokio::test]
async fn guarantee_10_a_full_or_broken_journal_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.limit_pages(1).unwrap();
    let journal = start(store, Bounds::default());
    for offset in 0..2_000 {
        journal.tell(offset);
    }
    let ticket = journal.tell(2_000);
    let waits = journal.recorder.stored(ticket);
    tokio::time::timeout(PATIENCE * 4, waits)
        .await
        .expect("a full journal is down");
    journal
        .recorder
        .close(journal.writer, Duration::from_secs(10))
        .await;

    let directory = tempfile::tempdir().unwrap();
    let journal = start(open(directory.path()), Bounds::default());
    let other = Connection::open(directory.path().join("segment-000001.db")).unwrap();
    other.execute_batch("drop table entry").unwrap();
    let ticket = journal.tell(0);
    let waits = journal.recorder.stored(ticket);
    tokio::time::timeout(PATIENCE * 4, waits)
        .await
        .expect("a broken journal is down");
    journal.took(ticket).await;
    let lost = journal.recorder.0.clone().unwrap().lost.get();
    assert_eq!(lost, 1, "what it refuses is counted");
}

/// A store that is there when it is told to be.
struct Late {
    there: Arc<AtomicBool>,
    asked: watch::Sender<u32>,
}

impl Keeper for Late {
    fn prepare(&mut self) -> Result<(), KeepError> {
        self.asked.send_modify(|asked| *asked += 1);
        if self.there.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(KeepError::away("not there"))
        }
    }

    fn write(&mut self, _: &[Change]) -> Result<(), KeepError> {
        self.prepare()
    }

    fn write_gap(&mut self, _: UnixMillis, _: UnixMillis, _: u64) -> Result<(), KeepError> {
        self.prepare()
    }

    fn retain(&mut self, _: UnixMillis) {}
}

#[tokio::test]
async fn guarantee_10_a_store_that_is_not_there_at_first_stops_nobody_and_is_asked_again() {
    let (asked, mut questions) = watch::channel(0);
    let there = Arc::new(AtomicBool::new(false));
    let late = Late {
        there: Arc::clone(&there),
        asked,
    };
    let recorder = Recorder::new(Clock::system(), Bounds::default(), &Registry::new()).unwrap();
    let writer = recorder.write_to(Box::new(late)).unwrap().unwrap();
    let mut progress = recorder.0.as_ref().unwrap().progress.subscribe();
    progress.wait_for(|progress| progress.down).await.unwrap();
    let began = Instant::now();
    for offset in 0..50 {
        let ticket = recorder.record(&mut vec![delivered("sub", offset)]);
        recorder.stored(ticket).await;
    }
    assert!(began.elapsed() < PATIENCE, "it is known to be down");
    there.store(true, Ordering::Relaxed);
    took(&recorder, Ticket(50)).await;
    let before = *questions.borrow_and_update();
    recorder.close(writer, Duration::from_secs(10)).await;
    assert_eq!(*questions.borrow(), before, "who is there is not asked");
}

#[tokio::test]
async fn a_store_is_ready_before_the_first_change() {
    let (asked, mut questions) = watch::channel(0);
    let there = Arc::new(AtomicBool::new(false));
    let late = Late {
        there: Arc::clone(&there),
        asked,
    };
    let recorder = Recorder::new(Clock::system(), Bounds::default(), &Registry::new()).unwrap();
    let writer = recorder.write_to(Box::new(late)).unwrap().unwrap();
    let mut progress = recorder.0.as_ref().unwrap().progress.subscribe();
    questions.wait_for(|asked| *asked >= 2).await.unwrap();
    there.store(true, Ordering::Relaxed);
    let up = progress.wait_for(|progress| !progress.down);
    let up = tokio::time::timeout(Duration::from_secs(30), up).await;
    up.expect("it is asked while nothing comes in").unwrap();
    recorder.close(writer, Duration::from_secs(10)).await;
}

#[tokio::test]
async fn guarantee_10_what_finds_no_room_while_the_database_is_gone_is_a_gap() {
    let Some(place) = Place::make() else { return };
    let bounds = Bounds {
        changes: 10,
        ..Bounds::default()
    };
    let recorder = Recorder::new(Clock::system(), bounds, &Registry::new()).unwrap();
    let store = place.store("node", 100);
    let writer = recorder.write_to(Box::new(store)).unwrap().unwrap();
    let first = recorder.record(&mut vec![delivered("sub", 0)]);
    recorder.stored(first).await;
    // All that the store knows is not to be had for a while.
    let (away, back) = (format!("{}_away", place.schema), &place.schema);
    place.run(&format!("alter schema {back} rename to {away}"));
    let mut told = recorder.record(&mut vec![delivered("sub", 1)]);
    recorder.stored(told).await;
    let mut dropped = 0;
    for offset in 2..40 {
        let ticket = recorder.record(&mut vec![delivered("sub", offset)]);
        dropped += u64::from(ticket == told);
        told = ticket;
    }
    assert!(dropped >= 20, "the queue has a bound: {dropped}");
    place.run(&format!("alter schema {away} rename to {back}"));
    took(&recorder, told).await;
    recorder.close(writer, Duration::from_secs(20)).await;
    let reader = place.reader();
    let all = PageRequest {
        after: None,
        before: None,
        size: 250,
    };
    let gaps = reader.reach().await.unwrap().gaps;
    let missing: u64 = gaps.iter().map(|gap| gap.changes).sum();
    let stored = reader.list(&Filter::default(), &all).await.unwrap();
    assert_eq!(
        (missing, stored.items.len() as u64),
        (dropped, 40 - dropped)
    );
}
