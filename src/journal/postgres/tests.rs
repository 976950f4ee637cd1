//! The contracts, and what only a database for several nodes does.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::NoTls;

use super::*;
use crate::clock::UnixMillis;
use crate::journal::contract::{AGE, Journal, change, contracts, delivered};
use crate::journal::{Change, Filter, JournalError, Keeper, Reader, Status};

/// A schema of a test's own in the database the tests were given; dropped with it.
pub(in crate::journal) struct Place {
    server: String,
    pub(in crate::journal) schema: String,
}

impl Place {
    /// `None`, with a word, where the tests were given no database.
    pub(in crate::journal) fn make() -> Option<Self> {
        let Ok(server) = std::env::var("TEST_POSTGRES_URL") else {
            eprintln!("skipped: TEST_POSTGRES_URL is not set (tests/run sets it)");
            return None;
        };
        let place = Self {
            server,
            schema: format!("levada_test_{}", uuid::Uuid::new_v4().simple()),
        };
        place.run(&format!("create schema {}", place.schema));
        Some(place)
    }

    fn address(&self) -> Address {
        let mark = if self.server.contains('?') { '&' } else { '?' };
        let address = format!(
            "{}{mark}options=-csearch_path%3D{1}&application_name={1}",
            self.server, self.schema
        );
        address.parse().unwrap()
    }

    pub(in crate::journal) fn store(&self, node: &str, portion: u64) -> Store {
        let limits = Limits {
            span: Duration::from_secs(portion),
            ..Limits::new(AGE, 1 << 40)
        };
        Store::new(&self.address(), node, limits).unwrap()
    }

    pub(in crate::journal) fn reader(&self) -> PostgresReader {
        PostgresReader::new(&self.address(), Arc::new(|| 0))
    }

    /// Runs statements in the schema, and gives what a query answers as texts.
    pub(in crate::journal) fn run(&self, statements: &str) -> Vec<String> {
        let statements = format!("set search_path to {}; {statements}", self.schema);
        on_a_thread(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (client, connection) =
                    tokio_postgres::connect(&self.server, NoTls).await.unwrap();
                let work = async {
                    let answers = client.simple_query(&statements).await.unwrap();
                    let first = |answer| match answer {
                        tokio_postgres::SimpleQueryMessage::Row(row) => {
                            Some(row.get(0).unwrap_or_default().to_owned())
                        }
                        _ => None,
                    };
                    answers.into_iter().filter_map(first).collect()
                };
                tokio::select! {
                    answers = work => answers,
                    ended = connection => panic!("the connection ended: {ended:?}"),
                }
            })
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.run(&format!("drop schema {} cascade", self.schema));
    }
}

/// A store blocks, which a test's runtime must not.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn write(store: &mut Store, changes: &[Change]) {
    on_a_thread(|| store.write(changes)).unwrap();
}

async fn journal(portion: u64) -> Option<Journal> {
    let place = Place::make()?;
    Some(Journal {
        keeper: Box::new(place.store("node", portion)),
        reader: Arc::new(place.reader()),
        _place: Box::new(place),
    })
}

contracts!(journal);

#[tokio::test]
async fn nodes_that_start_at_once_make_the_tables_once() {
    let Some(place) = Place::make() else { return };
    std::thread::scope(|scope| {
        for node in 0..6 {
            let mut store = place.store(&format!("node-{node}"), 2);
            scope.spawn(move || store.write(&[delivered("sub", node)]).unwrap());
        }
    });
    assert_eq!(place.run("select version from levada_schema"), ["1"]);
    let list = place.reader().list(&Filter::default(), &page()).await;
    assert_eq!(list.unwrap().items.len(), 6);
}

fn page() -> crate::journal::PageRequest {
    crate::journal::PageRequest {
        after: None,
        before: None,
        size: 250,
    }
}

#[tokio::test]
async fn a_message_that_changes_nodes_stays_one_message() {
    let Some(place) = Place::make() else { return };
    let (mut first, mut second) = (place.store("a", 100), place.store("b", 100));
    write(
        &mut first,
        &[change("sub", 1, 1, Status::Queued, Some(503))],
    );
    write(
        &mut second,
        &[
            change("sub", 1, 2, Status::Queued, Some(503)),
            delivered("sub", 2),
        ],
    );
    write(&mut first, &[change("sub", 1, 3, Status::Delivered, None)]);
    let reader = place.reader();
    let id = delivered("sub", 1).key.id.to_string();
    let story = reader.story(&id).await.unwrap().unwrap();
    let logs: Vec<_> = story
        .logs
        .iter()
        .map(|log| (log.number, log.attempt, log.node.as_str()))
        .collect();
    assert_eq!(logs, [(1, 1, "a"), (2, 2, "b"), (3, 3, "a")]);
    let list = reader.list(&Filter::default(), &page()).await.unwrap();
    assert_eq!(list.items.len(), 2);
    let sub = delivered("sub", 1).key.subscription.name.clone();
    let span = crate::journal::Span {
        from: UnixMillis(0),
        to: UnixMillis(60_000),
    };
    let reasons = reader.reasons(&sub, span).await.unwrap();
    assert_eq!(reasons[0].attempts, 2, "the counts of both nodes");
}

#[tokio::test]
async fn nodes_that_write_the_same_messages_at_once_lose_nothing() {
    let Some(place) = Place::make() else { return };
    let rounds = 8;
    std::thread::scope(|scope| {
        for node in 0..3_u32 {
            let mut store = place.store(&format!("node-{node}"), 20);
            scope.spawn(move || {
                for round in 0..rounds {
                    let attempt = round * 3 + node + 1;
                    let of = |offset| change("sub", offset, attempt, Status::Queued, Some(503));
                    let mut batch: Vec<_> = (0..40).map(of).collect();
                    if node == 1 {
                        batch.reverse();
                    }
                    // Two that meet may have to try again, as the journal's thread does.
                    while let Err(error) = store.write(&batch) {
                        assert!(!error.is_refused(), "{error}");
                    }
                }
            });
        }
    });
    let reader = place.reader();
    for offset in 0..40 {
        let id = delivered("sub", offset).key.id.to_string();
        let story = reader.story(&id).await.unwrap().unwrap();
        let numbers: Vec<_> = story.logs.iter().map(|log| log.number).collect();
        assert_eq!(numbers, (1..=3 * rounds).collect::<Vec<_>>(), "{offset}");
    }
}

#[tokio::test]
async fn a_commit_that_was_made_but_not_heard_of_is_not_made_twice() {
    let Some(place) = Place::make() else { return };
    let mut store = place.store("node", 100);
    let batch = [change("sub", 1, 1, Status::Queued, Some(503))];
    write(&mut store, &batch);
    let committed = place.run(
        "begin; insert into levada_gap (since, until, changes, node) values (1, 2, 3, 1); \
         select pg_current_xact_id()::text; commit",
    );
    store.doubt(&committed[0]);
    write(&mut store, &batch);
    let undone = place.run("begin; select pg_current_xact_id()::text; rollback");
    store.doubt(&undone[0]);
    write(&mut store, &[change("sub", 1, 2, Status::Delivered, None)]);
    let id = batch[0].key.id.to_string();
    let story = place.reader().story(&id).await.unwrap().unwrap();
    let attempts: Vec<_> = story.logs.iter().map(|log| log.attempt).collect();
    assert_eq!(attempts, [1, 2]);
}

#[tokio::test]
async fn what_is_dated_ahead_or_long_ago_is_kept_and_found() {
    let Some(place) = Place::make() else { return };
    let mut store = place.store("node", 10);
    // About a month ahead, and then its time comes.
    let (now, ahead) = (1_000, 3_000_000);
    write(&mut store, &[delivered("sub", now)]);
    let mut early = delivered("sub", ahead);
    early.at = delivered("sub", now).at;
    write(&mut store, &[early]);
    let rest = "select count(*) from levada_message_rest";
    assert_eq!(place.run(rest), ["1"]);
    write(
        &mut store,
        &[delivered("sub", ahead + 1), delivered("sub", 5)],
    );
    assert_eq!(
        place.run(rest),
        ["1"],
        "the old one takes the place of the early one"
    );
    let list = place
        .reader()
        .list(&Filter::default(), &page())
        .await
        .unwrap();
    let offsets: Vec<_> = list.items.iter().map(|message| message.offset).collect();
    assert_eq!(offsets, [ahead + 1, ahead, now, 5]);
    on_a_thread(|| store.retain(delivered("sub", ahead).at));
    assert_eq!(place.run("select count(*) from levada_message"), ["2"]);
}

#[tokio::test]
async fn the_oldest_go_when_it_is_too_much() {
    let Some(place) = Place::make() else { return };
    let limits = Limits {
        age: AGE,
        bytes: 1 << 20,
        span: Duration::from_secs(60),
    };
    let mut store = Store::new(&place.address(), "node", limits).unwrap();
    for minute in 0..12 {
        let many: Vec<_> = (0..60)
            .map(|second| delivered("sub", minute * 60 + second))
            .collect();
        write(&mut store, &many);
    }
    let now = delivered("sub", 12 * 60).at;
    on_a_thread(|| store.retain(now));
    let reach = place.reader().reach().await.unwrap();
    assert!(reach.oldest > Some(UnixMillis(0)), "{reach:?}");
    let newest = delivered("sub", 12 * 60 - 1).key.id.to_string();
    assert!(place.reader().message(&newest).await.unwrap().is_some());
}

#[tokio::test]
async fn a_database_that_is_not_there_is_said_to_be() {
    let gone: Address = "postgres://me:s3cret@127.0.0.1:1/levada".parse().unwrap();
    let limits = Limits::new(AGE, 1 << 30);
    let mut store = Store::new(&gone, "node", limits).unwrap();
    let error = on_a_thread(|| store.write(&[delivered("sub", 1)])).unwrap_err();
    assert!(!error.is_refused());
    let reader = PostgresReader::new(&gone, Arc::new(|| 7));
    let unavailable = reader.reach().await.unwrap_err();
    for said in [error.to_string(), unavailable.to_string()] {
        assert!(
            said.contains("127.0.0.1:1/levada") && said.contains("refused"),
            "{said}"
        );
        assert!(!said.contains("s3cret"), "{said}");
    }
    assert!(matches!(unavailable, JournalError::Unavailable(_)));
}

#[tokio::test]
async fn tables_that_are_missing_or_too_new_are_said_to_be() {
    let Some(place) = Place::make() else { return };
    let missing = place.reader().reach().await.unwrap_err().to_string();
    assert!(missing.contains("tables are not there"), "{missing}");
    let mut store = place.store("node", 10);
    write(&mut store, &[delivered("sub", 1)]);
    place.run("update levada_schema set version = 99");
    let mut store = place.store("node", 10);
    let error = on_a_thread(|| store.write(&[delivered("sub", 2)])).unwrap_err();
    assert!(error.to_string().contains("version 99"), "{error}");
    place.run("update levada_schema set version = 1");
    write(&mut store, &[delivered("sub", 2)]);
}

#[tokio::test]
async fn a_connection_that_was_cut_is_made_anew() {
    let Some(place) = Place::make() else { return };
    let mut store = place.store("node", 10);
    let reader = place.reader();
    write(&mut store, &[delivered("sub", 1)]);
    reader.reach().await.unwrap();
    let cut = place.run(&format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = '{}'",
        place.schema
    ));
    assert_eq!(cut, ["t", "t"]);
    write(&mut store, &[delivered("sub", 2)]);
    let list = reader.list(&Filter::default(), &page()).await.unwrap();
    assert_eq!(list.items.len(), 2);
}
