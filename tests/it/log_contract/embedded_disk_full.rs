//! The embedded log on a disk that is full, and has room again.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use levada::log::embedded::EmbeddedLog;
use levada::log::{EventLog, LogError, Offset, Position, Target, TopicName};

use super::embedded::open_in;
use super::{LIMIT, append, part, read_all, spec, valued, within};

const DIR: &str = "LEVADA_TEST_SMALL_DISK";

/// Whether this machine lets a process mount a disk of its own.
fn can_mount() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "true"]);
    command.output().is_ok_and(|output| output.status.success())
}

/// Runs the test below on a disk of 120 MiB of its own.
#[test]
fn a_full_disk_is_never_acknowledged_and_recovered_from() {
    if !can_mount() {
        eprintln!("skipped: this needs unshare(1) and user namespaces");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_, module) = module_path!().split_once("::").unwrap();
    let run = "mount -t tmpfs -o size=120m tmpfs \"$0\" && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", run])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("{module}::on_a_small_disk"),
            "--ignored",
            "--nocapture",
        ])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "runs on the disk that the test above makes"]
async fn on_a_small_disk() {
    let Some(disk) = std::env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let topic = TopicName::try_new("small").unwrap();
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![1; 60 << 20]).unwrap();
    let log = open_in(&disk.join("log")).unwrap();
    log.create_topic(&spec(&topic, 1)).await.unwrap();

    let mut acknowledged = Vec::new();
    let refused = loop {
        match store(&log, &topic).await {
            Ok(position) => acknowledged.push(position.offset),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LogError::Unavailable(_)), "{refused:?}");
    assert!(!acknowledged.is_empty());
    let expected: Vec<_> = (0..).take(acknowledged.len()).map(Offset).collect();
    assert_eq!(acknowledged, expected);
    assert!(store(&log, &topic).await.is_err(), "there still is no room");
    assert!(log.probe().await.is_err());

    std::fs::remove_file(&ballast).unwrap();
    let recovered = async {
        while log.probe().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("room on the disk", recovered).await;
    acknowledged.push(store(&log, &topic).await.unwrap().offset);
    for _ in 0..2 {
        check(&log, &topic, &acknowledged).await;
    }
    log.close(LIMIT).await.unwrap();
    let log = open_in(&disk.join("log")).unwrap();
    check(&log, &topic, &acknowledged).await;
    log.close(LIMIT).await.unwrap();
}

async fn store(log: &EmbeddedLog, topic: &TopicName) -> Result<Position, LogError> {
    let noise: Vec<u8> = (0..100_000).map(|_| rand::random()).collect();
    append(log, topic, Target::ByKey, valued(noise)).await
}

async fn check(log: &EmbeddedLog, topic: &TopicName, acknowledged: &[Offset]) {
    let found = read_all(log, &part(topic, 0), 0).await;
    let offsets: Vec<_> = found.iter().map(|record| record.offset).collect();
    let consecutive: Vec<_> = (0..).take(offsets.len()).map(Offset).collect();
    assert_eq!(offsets, consecutive);
    assert!(acknowledged.iter().all(|offset| offsets.contains(offset)));
}
