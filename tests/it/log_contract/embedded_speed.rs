//! How fast the embedded log is; run alone, with `--release --ignored --nocapture`.

use std::io::Write;
use std::time::Duration;

use futures_util::future::join_all;
use levada::log::embedded::EmbeddedLog;
use levada::log::{EventLog, GroupId, Record, Target, TopicName};
use tokio::time::Instant;

use super::embedded::open_in;
use super::member::{Member, dynamic};
use super::{LIMIT, part, spec, valued};

const CALLERS: u32 = 64;
const APPENDS: u32 = 400_000;

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn say(line: &str) {
    println!("{line}");
}

/// Resident memory of this process, in MB.
fn memory() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_usize) * 4096 / 1_000_000
}

fn kilobyte() -> Record {
    let noise: Vec<u8> = (0..1024).map(|_| rand::random()).collect();
    valued(noise)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn appends_and_reads_per_second() {
    let dir = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let start = Instant::now();
    let log = open_in(dir.path()).unwrap();
    say(&format!(
        "open, empty: {:?}, {} MB",
        start.elapsed(),
        memory()
    ));
    let topic = TopicName::try_new("speed").unwrap();
    log.create_topic(&spec(&topic, 4)).await.unwrap();

    one_caller(&log, &topic).await;
    let start = Instant::now();
    let callers = (0..CALLERS).map(|_| {
        let (log, topic, record) = (log.clone(), topic.clone(), kilobyte());
        async move {
            for _ in 0..APPENDS / CALLERS {
                log.append(&topic, Target::ByKey, record.clone())
                    .await
                    .unwrap();
            }
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    callers.for_each(|caller| drop(tasks.spawn(caller)));
    tasks.join_all().await;
    report("appends, 64 callers", APPENDS, start.elapsed());

    drain(&log, &topic).await;
    log.close(LIMIT).await.unwrap();
    drop(log);
    let start = Instant::now();
    let log = open_in(dir.path()).unwrap();
    say(&format!(
        "open, full: {:?}, {} MB",
        start.elapsed(),
        memory()
    ));
    log.close(LIMIT).await.unwrap();
    drop(log);
    say(&format!("closed: {} MB", memory()));
}

fn report(what: &str, count: u32, took: Duration) {
    let rate = f64::from(count) / took.as_secs_f64();
    say(&format!("{what}: {rate:.0}/s, {} MB", memory()));
}

async fn one_caller(log: &EmbeddedLog, topic: &TopicName) {
    let record = kilobyte();
    let mut times = Vec::new();
    for _ in 0..2000 {
        let start = Instant::now();
        log.append(topic, Target::ByKey, record.clone())
            .await
            .unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    let dir = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let mut file = std::fs::File::create(dir.path().join("bare")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.sync_all().unwrap();
    let mut bare = Vec::new();
    for _ in 0..2000 {
        let start = Instant::now();
        file.write_all(&[1; 1100]).unwrap();
        file.sync_all().unwrap();
        bare.push(start.elapsed());
    }
    bare.sort();
    say(&format!(
        "1 caller: p50 {:?}, p99 {:?}; bare write and fsync p50 {:?}, p99 {:?}",
        times[1000], times[1980], bare[1000], bare[1980]
    ));
}

async fn drain(log: &EmbeddedLog, topic: &TopicName) {
    let start = Instant::now();
    let mut member = Member::join(log, dynamic(&GroupId("speed".into()), &[topic]));
    let starts: Vec<_> = (0..4).map(|n| (part(topic, n), 0)).collect();
    member.start_at(&starts).await;
    let mut taken = 0;
    for (at, source) in &mut member.sources {
        let mut records = Vec::new();
        while source.take(500, &mut records).unwrap() > 0 {
            taken += u32::try_from(records.len()).unwrap();
            records.clear();
        }
        let marks = log.watermarks(&at.topic).await.unwrap();
        assert!(marks[at.partition.index()].high.0 > 0);
    }
    report("taken", taken, start.elapsed());
    let idle = Instant::now();
    let mut none = Vec::new();
    for source in member.sources.values_mut() {
        for _ in 0..250_000 {
            source.take(500, &mut none).unwrap();
        }
    }
    say(&format!("1M takes of nothing: {:?}", idle.elapsed()));
    let trims = (0..4).map(|n| async move {
        let marks = log.watermarks(topic).await.unwrap();
        let partition = part(topic, n).partition;
        let high = marks[partition.index()].high;
        log.trim(topic, &[(partition, high)]).await.unwrap();
    });
    join_all(trims).await;
    member.leave(false).await;
}
