//! The contracts, and what only files do.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::journal::contract::{Journal, change, contracts, delivered};
use crate::journal::{Change, Filter, PageRequest, Reader, Status};

pub(super) fn open(path: &Path, rows: u64) -> (Store, SqliteReader) {
    let limits = Limits {
        rows,
        ..Limits::default()
    };
    let store = Store::open(path, "node", limits).unwrap();
    let reader = store.reader(Arc::new(|| 0));
    (store, reader)
}

async fn journal(rows: u64) -> Option<Journal> {
    let directory = tempfile::tempdir().unwrap();
    let (store, reader) = open(directory.path(), rows);
    Some(Journal {
        keeper: Box::new(store),
        reader: Arc::new(reader),
        _place: Box::new(directory),
    })
}

contracts!(journal);

async fn list(reader: &SqliteReader) -> Vec<i64> {
    let page = PageRequest {
        after: None,
        before: None,
        size: 250,
    };
    let page = reader.list(&Filter::default(), &page).await.unwrap();
    page.items.iter().map(|message| message.offset).collect()
}

#[tokio::test]
async fn a_message_of_an_older_segment_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 2);
    store
        .write(&[change("sub", 0, 1, Status::Queued, Some(503))])
        .unwrap();
    for offset in 1..6 {
        store.write(&[delivered("sub", offset)]).unwrap();
    }
    let rows = |store: &Store| {
        store
            .directory()
            .load()
            .iter()
            .map(|known| known.rows)
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&store), [2, 2, 2]);
    store
        .write(&[change("sub", 0, 2, Status::Delivered, None)])
        .unwrap();
    assert_eq!(rows(&store), [1, 2, 2, 1]);
    assert_eq!(list(&reader).await, [5, 4, 3, 2, 1, 0]);
}

#[tokio::test]
async fn the_segment_that_is_written_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 2);
    for offset in 0..6 {
        store.write(&[delivered("sub", offset)]).unwrap();
    }
    store.retain(UnixMillis(i64::MAX));
    assert_eq!(list(&reader).await, [5, 4]);
    assert_eq!(reader.reach().await.unwrap().messages, 2);
}

#[tokio::test]
async fn a_file_that_was_only_begun_or_is_broken_keeps_nothing_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("segment-000001.db"), b"").unwrap();
    let (mut store, reader) = open(directory.path(), 10);
    store.write(&[delivered("sub", 1)]).unwrap();
    assert_eq!(list(&reader).await, [1]);
    drop(store);
    std::fs::write(directory.path().join("segment-000002.db"), vec![b'x'; 8192]).unwrap();
    let (mut store, reader) = open(directory.path(), 10);
    store.write(&[delivered("sub", 2)]).unwrap();
    assert_eq!(list(&reader).await, [2, 1]);
    assert!(directory.path().join("segment-000002.broken").exists());
}

#[tokio::test]
async fn headers_that_repeat_come_back_with_each_message() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, reader) = open(directory.path(), 100);
    let told: Vec<Change> = (0..6).map(|offset| delivered("sub", offset)).collect();
    // In one batch, in another, and after the names were read anew.
    store.write(&told[..3]).unwrap();
    store.write(&told[3..5]).unwrap();
    drop(store);
    let (mut store, _) = open(directory.path(), 100);
    store.write(&told[5..]).unwrap();
    for change in &told {
        let id = change.key.id.to_string();
        let story = reader.story(&id).await.unwrap().unwrap();
        let log = &story.logs[0];
        assert_eq!(log.url, "http://sink.test/");
        assert_eq!(log.node, "node");
        let masked = ("authorization".to_owned(), "***".to_owned());
        assert_eq!(log.request_headers, [masked], "{id}");
        assert!(log.response_headers.is_empty());
    }
}
