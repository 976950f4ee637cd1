//! The fault suite: the real program under load while everything around it is killed, frozen, cut
//! off and moved, and afterwards every single message is accounted for. See `docs/faults.md`.
//!
//! ```sh
//! tests/run faults --log kafka|embedded [--runs N] [--seed S] [--short | --long MINUTES]
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "progress and table are the result")]
#![expect(
    clippy::disallowed_methods,
    reason = "real time and plain tasks: no clock of Tokio's is paused here"
)]

mod commits;
mod kafka;
mod ledger;
mod log;
mod nodes;
mod plan;
mod producers;
mod report;
mod run;
mod script;
mod subscriber;
mod verdict;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;

use plan::{LogKind, Plan, Size};
use report::{Progress, Row};
use verdict::Verdict;

#[derive(clap::Parser)]
#[command(name = "tests/run faults", about = "Kills everything, loses nothing")]
struct Arguments {
    /// Which event log.
    #[arg(long, value_parser = parse_log)]
    log: LogKind,
    /// Runs, each with a seed of its own.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Seed of the first run; each further run has one more. Without: random.
    #[arg(long)]
    seed: Option<u64>,
    /// Half a minute in place of a full run.
    #[arg(long)]
    short: bool,
    /// Leave Kafka alone: what kills of dispatchers and rebalances cost by themselves.
    #[arg(long)]
    spare_kafka: bool,
    /// So many minutes in place of a full run.
    #[arg(long, value_name = "MINUTES", conflicts_with = "short")]
    long: Option<u32>,
}

fn parse_log(written: &str) -> Result<LogKind, String> {
    match written {
        "kafka" => Ok(LogKind::Kafka),
        "embedded" => Ok(LogKind::Embedded),
        _ => Err("kafka or embedded".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let size = match arguments.long {
        Some(minutes) => Size::Long(minutes),
        None if arguments.short => Size::Short,
        None => Size::Full,
    };
    let first = arguments
        .seed
        .unwrap_or_else(|| rand::random_range(1..1_000_000));
    let mut rows = Vec::new();
    for number in 0..arguments.runs {
        let mut plan = Plan::new(arguments.log, size, first + number);
        if arguments.spare_kafka {
            plan.tracks.truncate(1);
        }
        println!(
            "run {} of {} on {:?}: seed {}, {} events at {}/s, {} faults",
            number + 1,
            arguments.runs,
            plan.log,
            plan.seed,
            plan.events,
            plan.rate,
            plan.tracks.iter().map(Vec::len).sum::<usize>()
        );
        rows.push(one(&plan));
    }
    report::table(&rows);
    if rows.iter().all(|row| row.verdict.is_good()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn one(plan: &Plan) -> Row {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut progress = Progress::new();
    let run = || runtime.block_on(run::run(plan, directory.path(), &mut progress));
    // One that cannot be carried through is a result as well, and the others go on.
    let verdict = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Verdict::broken_off());
    runtime.shutdown_background();
    let row = Row {
        seed: plan.seed,
        seconds: progress.seconds(),
        verdict,
    };
    row.explain();
    let good = if row.verdict.is_good() { "good" } else { "BAD" };
    progress.say(good);
    if !row.verdict.is_good() {
        let kept = keep_logs(directory.path(), plan);
        println!("    what the processes wrote is in {}", kept.display());
    }
    row
}

/// Copies what the processes wrote to where it is not deleted.
fn keep_logs(directory: &Path, plan: &Plan) -> PathBuf {
    let name = format!("faults-{:?}-{}", plan.log, plan.seed);
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&kept).unwrap();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.path().extension().is_some_and(|it| it == "log") {
            fs::copy(entry.path(), kept.join(entry.file_name())).unwrap();
        }
    }
    kept
}
