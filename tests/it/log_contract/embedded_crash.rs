//! The embedded log when its process is killed, when two processes want it, and when its journal
//! was cut off.
//!
//! The other process is this test binary again, told by an environment variable what to do.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use levada::log::embedded::{EmbeddedLog, OpenError};
use levada::log::{EventLog, GroupId, LogError, Offset, Partition, Target, TopicName};

use super::embedded::open_in;
use super::groups::commit;
use super::{LIMIT, append, headers, part, read_all, spec, texts, valued};

const DIR: &str = "LEVADA_TEST_LOG_DIR";
const PARTITIONS: u32 = 3;

fn topic() -> TopicName {
    TopicName::try_new("crash").unwrap()
}

fn group() -> GroupId {
    GroupId("crash".into())
}

/// Another process with a log open, killed when dropped.
struct OtherProcess {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl OtherProcess {
    /// Runs the ignored test `role` of this module on the log in `dir`.
    fn start(role: &str, dir: &Path) -> Self {
        let (_, module) = module_path!().split_once("::").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                &format!("{module}::{role}"),
                "--ignored",
                "--nocapture",
            ])
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next whole line that says something, `None` at the end.
    fn said(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            self.lines.read_line(&mut line).unwrap();
            // A line without an end was cut off by the kill.
            let whole = line.strip_suffix('\n')?;
            if let Some(said) = whole.strip_prefix("> ") {
                return Some(said.to_owned());
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("> {line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// What a process that was killed had been told is stored.
#[derive(Default)]
struct Acknowledged {
    records: BTreeMap<(i32, i64), String>,
    commits: BTreeMap<i32, i64>,
}

impl Acknowledged {
    fn hear(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["stored", partition, offset, value] => {
                let place = (partition.parse().unwrap(), offset.parse().unwrap());
                let before = self.records.insert(place, value.to_owned());
                assert_eq!(before, None, "{place:?} was given twice");
            }
            ["committed", partition, offset] => {
                self.commits
                    .insert(partition.parse().unwrap(), offset.parse().unwrap());
            }
            _ => panic!("heard {line:?}"),
        }
    }

    async fn check(&mut self, log: &dyn EventLog) {
        let mut stored = BTreeMap::new();
        for n in 0..i32::try_from(PARTITIONS).unwrap() {
            let records = read_all(log, &part(&topic(), n), 0).await;
            let offsets: Vec<_> = records.iter().map(|r| r.offset.0).collect();
            let consecutive: Vec<_> = (0..).take(offsets.len()).collect();
            assert_eq!(offsets, consecutive, "partition {n}");
            let values = texts(&records).into_iter();
            stored.extend(offsets.iter().map(|&offset| (n, offset)).zip(values));
        }
        for (place, value) in &self.records {
            assert_eq!(stored.get(place), Some(value), "{place:?}");
        }
        for (partition, heard) in &mut self.commits {
            let at = part(&topic(), *partition);
            let found = log.committed(&group(), &[at]).await.unwrap();
            let found = found[0].as_ref().unwrap();
            // The one after it may have been written too, its answer not heard any more.
            let offset = found.offset.0;
            assert!(
                offset == *heard || offset == *heard + 1,
                "heard of {heard}, found {found:?}"
            );
            assert_eq!(found.metadata, format!("lv1:{offset}"));
            *heard = offset;
        }
    }
}

async fn close(log: Arc<EmbeddedLog>) {
    log.close(LIMIT).await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 0..8 {
        let mut writer = OtherProcess::start("writes_until_killed", dir.path());
        // Sometimes at the very start, sometimes with much in the journal.
        let until = rand::random_range(0..1 << rand::random_range(1..14));
        for _ in 0..until {
            acknowledged.hear(&writer.said().unwrap());
        }
        writer.kill();
        while let Some(line) = writer.said() {
            acknowledged.hear(&line);
        }
        let log = open_in(dir.path()).unwrap();
        if round == 0 {
            log.create_topic(&spec(&topic(), PARTITIONS)).await.unwrap();
        }
        acknowledged.check(&*log).await;
        close(log).await;
    }
    assert!(!acknowledged.records.is_empty());
}

#[tokio::test]
#[ignore = "the process to kill in the test above"]
async fn writes_until_killed() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let log = open_in(&dir).unwrap();
    log.create_topic(&spec(&topic(), PARTITIONS)).await.unwrap();
    let tasks = (0..8).map(|task| write_for_ever(&log, task));
    let commits = (0..i32::try_from(PARTITIONS).unwrap()).map(|n| commit_for_ever(&log, n));
    futures_util::future::join(
        futures_util::future::join_all(tasks),
        futures_util::future::join_all(commits),
    )
    .await;
}

async fn write_for_ever(log: &EmbeddedLog, task: usize) {
    for n in 0_u64.. {
        // Sizes on both sides of every buffer below.
        let padding = "x".repeat(1 << rand::random_range(0..15));
        let mut record = valued(format!("{task}-{n}-{:x}", rand::random::<u64>()));
        record.headers = headers(&[("padding", &padding)]);
        let said = String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
        let position = append(log, &topic(), Target::ByKey, record).await.unwrap();
        let (partition, offset) = (position.partition.0, position.offset.0);
        say(&format!("stored {partition} {offset} {said}"));
    }
}

async fn commit_for_ever(log: &EmbeddedLog, partition: i32) {
    let at = part(&topic(), partition);
    let found = log
        .committed(&group(), std::slice::from_ref(&at))
        .await
        .unwrap();
    let next = found[0].as_ref().map_or(0, |commit| commit.offset.0 + 1);
    for offset in next.. {
        let to = commit(offset, &format!("lv1:{offset}"));
        log.commit_idle(&group(), vec![(at.clone(), to)])
            .await
            .unwrap();
        say(&format!("committed {partition} {offset}"));
    }
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_free_again_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = OtherProcess::start("holds_the_directory", dir.path());
    assert_eq!(holder.said().unwrap(), "open");

    let refused = open_in(dir.path()).unwrap_err();
    assert!(
        matches!(&refused, OpenError::InUse(named) if named == dir.path()),
        "{refused}"
    );
    let message = refused.to_string();
    assert!(message.contains(dir.path().to_str().unwrap()), "{message}");
    assert!(message.contains("in use"), "{message}");

    holder.kill();
    close(open_in(dir.path()).unwrap()).await;
}

#[tokio::test]
#[ignore = "the process that holds the directory in the test above"]
async fn holds_the_directory() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let _log = open_in(&dir).unwrap();
    say("open");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn everything_is_there_after_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_in(dir.path()).unwrap();
    log.create_topic(&spec(&topic(), PARTITIONS)).await.unwrap();
    let one = part(&topic(), 1);
    super::append_numbers(&*log, &one, 0..100).await;
    log.trim(&topic(), &[(Partition(1), Offset(40))])
        .await
        .unwrap();
    log.trim(&topic(), &[(Partition(0), Offset(0))])
        .await
        .unwrap();
    let commits = vec![(one.clone(), commit(50, "lv1:x"))];
    log.commit_idle(&group(), commits).await.unwrap();
    let description = log.describe_topic(&topic()).await.unwrap();
    let before = (
        log.watermarks(&topic()).await.unwrap(),
        read_all(&*log, &one, 0).await,
    );
    close(log).await;

    let log = open_in(dir.path()).unwrap();
    assert_eq!(log.describe_topic(&topic()).await.unwrap(), description);
    let after = (
        log.watermarks(&topic()).await.unwrap(),
        read_all(&*log, &one, 0).await,
    );
    assert_eq!(after, before);
    let found = log
        .committed(&group(), std::slice::from_ref(&one))
        .await
        .unwrap();
    assert_eq!(found, [Some(commit(50, "lv1:x"))]);
    assert_eq!(
        super::append_numbers(&*log, &one, 0..1).await,
        [Offset(100)]
    );

    // Trimmed to the end: the offsets go on all the same.
    log.trim(&topic(), &[(Partition(1), Offset(101))])
        .await
        .unwrap();
    close(log).await;
    let log = open_in(dir.path()).unwrap();
    let marks = log.watermarks(&topic()).await.unwrap()[1];
    assert_eq!((marks.low, marks.high), (Offset(101), Offset(101)));

    // A topic made anew is another one: no records, no commits.
    log.delete_topic(&topic()).await.unwrap();
    close(log).await;
    let log = open_in(dir.path()).unwrap();
    let appended = append(&*log, &topic(), Target::ByKey, valued("x")).await;
    assert_eq!(appended.unwrap_err(), LogError::UnknownTopic(topic()));
    log.create_topic(&spec(&topic(), PARTITIONS)).await.unwrap();
    let marks = log.watermarks(&topic()).await.unwrap()[1];
    assert_eq!((marks.low, marks.high), (Offset(0), Offset(0)));
    let found = log
        .committed(&group(), std::slice::from_ref(&one))
        .await
        .unwrap();
    assert_eq!(found, [None]);
    close(log).await;
}

/// The journal that is written to, and the end of what is in it.
fn journal(dir: &Path) -> (PathBuf, Vec<u8>) {
    let files = std::fs::read_dir(dir.join("store")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let is_journal = |path: &PathBuf| path.extension().is_some_and(|e| e == "jnl");
    let path = paths.filter(is_journal).max().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    bytes.truncate(end);
    (path, bytes)
}

/// A log with ten rounds of records in its journal, closed.
async fn ten_rounds(dir: &Path) {
    let log = open_in(dir).unwrap();
    log.create_topic(&spec(&topic(), 1)).await.unwrap();
    for n in 0..10_u32 {
        super::append_numbers(&*log, &part(&topic(), 0), n * 10..n * 10 + 10).await;
        let large = append(&*log, &topic(), Target::ByKey, valued("y".repeat(10_000))).await;
        large.unwrap();
    }
    close(log).await;
}

/// Opens a log that was damaged and checks that it goes on where its journal is whole.
async fn check_healed(dir: &Path) {
    let log = open_in(dir).unwrap();
    let at = part(&topic(), 0);
    let found = read_all(&*log, &at, 0).await;
    let offsets: Vec<_> = found.iter().map(|r| r.offset.0).collect();
    let kept = i64::try_from(found.len()).unwrap();
    assert_eq!(offsets, (0..kept).collect::<Vec<_>>());
    assert!((80..=110).contains(&kept), "{kept} were kept");
    let next = super::append_numbers(&*log, &at, 0..1).await;
    assert_eq!(next, [Offset(kept)]);
    close(log).await;
    let log = open_in(dir).unwrap();
    assert_eq!(read_all(&*log, &at, 0).await.len(), found.len() + 1);
    close(log).await;
}

#[tokio::test]
async fn a_journal_that_was_cut_off_heals() {
    for cut in [1, 2, 11, 12, 13, 500, 9_000, 10_100, 12_000] {
        let dir = tempfile::tempdir().unwrap();
        ten_rounds(dir.path()).await;
        let (path, bytes) = journal(dir.path());
        std::fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
        check_healed(dir.path()).await;
    }
}

#[tokio::test]
async fn a_journal_that_ends_in_garbage_heals() {
    for garbage in [
        &b"\x01"[..],
        b"\x02\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x01\0\0\0\x01",
    ] {
        let dir = tempfile::tempdir().unwrap();
        ten_rounds(dir.path()).await;
        let (path, bytes) = journal(dir.path());
        std::fs::write(&path, [&bytes[..], garbage].concat()).unwrap();
        check_healed(dir.path()).await;
    }
}

/// Power was lost while a round was written: of its pages some came to the disk and some not.
#[tokio::test]
async fn a_round_of_which_pages_are_missing_is_dropped() {
    for (from_end, len) in [(9_000, 4096), (5_000, 4096), (200, 100), (10_000, 9_900)] {
        let dir = tempfile::tempdir().unwrap();
        ten_rounds(dir.path()).await;
        let (path, mut bytes) = journal(dir.path());
        let start = bytes.len() - from_end;
        bytes[start..start + len].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        check_healed(dir.path()).await;
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = open_in(&path).unwrap_err();
        assert!(matches!(error, OpenError::Directory { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[tokio::test]
async fn an_open_that_was_interrupted_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let draft = dir.path().join("store.new");
    std::fs::create_dir(&draft).unwrap();
    std::fs::write(draft.join("0.jnl"), "half").unwrap();
    let log = open_in(dir.path()).unwrap();
    log.create_topic(&spec(&topic(), 1)).await.unwrap();
    close(log).await;
    assert!(!draft.exists());
}
