//! `levada check`: whether manifests are valid, and what their retries come to.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::table::{indented, table};
use super::{CliError, Console, Tone};
use crate::channel::{BackoffPolicy, DeliverySpec};
use crate::duration::iso;
use crate::manifest::{self, Report, RetryStep, Source, check_timeline, retry_timeline};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  levada check manifests/
  levada check --previous deployed/ manifests/
  git diff --name-only main | grep yaml$ | xargs levada check

Ends with 0 if everything is valid, with 1 if something has to be corrected.")]
pub(super) struct Args {
    /// What is in force now: fields that cannot change are compared with it. Several times.
    #[arg(long, value_name = "OLD")]
    previous: Vec<PathBuf>,
    /// Manifests, and directories with .yaml, .yml and .json files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, console: &Console) -> Result<(), CliError> {
    let report = manifest::check(&read(&args.files)?, &read(&args.previous)?);
    for problem in &report.problems {
        console.line(console.paint(Tone::Bad, problem))?;
    }
    for warning in &report.warnings {
        let text = format!("{warning} (warning)");
        console.line(console.paint(Tone::Notice, text))?;
    }
    if !report.is_valid() {
        return Err(CliError::Told);
    }
    console.text(&summary(&report))
}

fn read(paths: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let mut sources = Vec::new();
    for path in paths {
        for file in files(path)? {
            let content = std::fs::read(&file).map_err(|error| unreadable(&file, &error))?;
            let name = file.display().to_string();
            sources.push(Source { name, content });
        }
    }
    Ok(sources)
}

/// `path` itself, or the manifests in it.
fn files(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
        let file = entry.map_err(|error| unreadable(path, &error))?.path();
        let hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = file.extension().and_then(|extension| extension.to_str());
        if !hidden && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        let said = format!("{}: no .yaml, .yml or .json file in it", path.display());
        return Err(CliError::Failed(said));
    }
    Ok(files)
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Failed(format!("{}: cannot be read: {error}", path.display()))
}

fn summary(report: &Report) -> String {
    let count = report.documents.len();
    let mut text = match count {
        1 => "1 resource is valid\n".to_owned(),
        _ => format!("{count} resources are valid\n"),
    };
    for (name, spec) in report.deliveries() {
        let _ = write!(text, "\nsubscription {name}: {}\n", retries(&spec));
        let steps = retry_timeline(&spec);
        if steps.len() > 1 {
            text.push_str(&indented(&timeline("ATTEMPT", &steps), 2));
        }
        if spec.status_check.is_some() {
            text.push_str("  after a 2xx the provider is asked, as long as it tells nothing\n");
            text.push_str(&indented(&timeline("CHECK", &check_timeline()), 2));
        }
    }
    text
}

/// The retries in words.
fn retries(spec: &DeliverySpec) -> String {
    if spec.retry == 0 {
        return "one attempt, no retries".into();
    }
    let policy = match spec.backoff.policy {
        BackoffPolicy::Linear => "linear",
        BackoffPolicy::Exponential => "exponential",
    };
    let word = if spec.retry == 1 { "retry" } else { "retries" };
    let mut text = format!(
        "{} {word}, {policy} from {}",
        spec.retry,
        iso(spec.backoff.delay)
    );
    if let Some(window) = spec.retry_window {
        let _ = write!(text, ", within {}", iso(window));
    }
    let _ = write!(text, "; each attempt may take {}", iso(spec.timeout));
    text
}

/// Rows that are shown at the start of a long list; the last one always is.
const SHOWN: usize = 20;

fn timeline(what: &str, steps: &[RetryStep]) -> String {
    let jitter = steps.iter().any(|step| step.earliest != step.latest);
    let row = |step: &RetryStep| {
        let mut row = vec![step.attempt.to_string(), since_start(step.earliest)];
        if jitter {
            row.push(since_start(step.latest));
        }
        row
    };
    let mut rows: Vec<_> = steps.iter().take(SHOWN).map(row).collect();
    if let Some(last) = steps.get(SHOWN..).and_then(<[_]>::last) {
        if steps.len() > SHOWN + 1 {
            rows.push(vec!["…".into(); if jitter { 3 } else { 2 }]);
        }
        rows.push(row(last));
    }
    let head: &[_] = if jitter {
        &[what, "EARLIEST", "LATEST"]
    } else {
        &[what, "AFTER"]
    };
    table(head, &rows)
}

/// `0.2 s`, `1 min 30 s`, `2 h 5 min`, `3 d 4 h`: two units at most.
fn since_start(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |first: u64, unit: &str, second: u64, other: &str| match second {
        0 => format!("{first} {unit}"),
        _ => format!("{first} {unit} {second} {other}"),
    };
    match seconds {
        0..=59 => {
            let text = format!("{:.3}", duration.as_secs_f64());
            format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        60..=3_599 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..=86_399 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::console::captured;
    use super::*;

    const GOOD: &str = "\
apiVersion: messaging.knative.dev/v1beta1
kind: KafkaChannel
metadata: { name: orders }
spec: { numPartitions: 1 }
---
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: { name: billing }
spec:
  channel: { apiVersion: messaging.knative.dev/v1beta1, kind: KafkaChannel, name: orders }
  subscriber: { uri: http://localhost:9000/ }
  delivery: { retry: 3, backoffPolicy: exponential, backoffDelay: PT0.5S }
";

    fn checked(content: &str) -> (Result<(), CliError>, String) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), content).unwrap();
        std::fs::write(dir.path().join(".hidden.yaml"), "{").unwrap();
        std::fs::write(dir.path().join("notes.txt"), "{").unwrap();
        let (console, text) = captured();
        let args = Args {
            previous: Vec::new(),
            files: vec![dir.path().to_owned()],
        };
        let result = run(&args, &console);
        (
            result,
            text().replace(&dir.path().display().to_string(), "D"),
        )
    }

    #[test]
    fn valid_manifests_are_shown_with_their_retries() {
        let (result, said) = checked(GOOD);
        result.unwrap();
        let wanted = "\
2 resources are valid

subscription default/billing: 3 retries, exponential from PT0.5S; each attempt may take PT30S
  ATTEMPT  AFTER
  1        0 s
  2        1 s
  3        3 s
  4        7 s
";
        assert_eq!(said, wanted);
    }

    #[test]
    fn status_checks_are_shown_with_their_times() {
        let check = "statusCheck: { status: /state, delivered: [ok] }";
        let levada = GOOD
            .replace("messaging.knative.dev/v1\n", "levada.dev/v1\n")
            .replace("retry: 3", &format!("{check}, retry: 3"));
        let (result, said) = checked(&levada);
        result.unwrap();
        for line in [
            "  after a 2xx the provider is asked, as long as it tells nothing\n",
            "  CHECK  EARLIEST     LATEST\n",
            "  1      0.875 s      1.75 s\n",
            "  10     14 min 55 s  29 min 50 s\n",
        ] {
            assert!(said.contains(line), "{line:?} is not in\n{said}");
        }
    }

    #[test]
    fn problems_are_shown_with_file_line_and_field() {
        let (result, said) = checked(&GOOD.replace("retry: 3", "retry: -1"));
        assert!(matches!(result, Err(CliError::Told)));
        assert!(
            said.starts_with("D/a.yaml:12: spec.delivery.retry: "),
            "{said}"
        );
    }

    #[test]
    fn long_timelines_are_cut_and_times_are_readable() {
        let step = |attempt| RetryStep {
            attempt,
            earliest: Duration::from_secs(attempt),
            latest: Duration::from_secs(attempt * 2),
        };
        let steps: Vec<_> = (1..=100).map(step).collect();
        let shown = timeline("ATTEMPT", &steps);
        assert_eq!(shown.lines().count(), 1 + SHOWN + 2);
        assert!(
            shown.ends_with("100      1 min 40 s  3 min 20 s\n"),
            "{shown}"
        );
        for (millis, wanted) in [
            (0, "0 s"),
            (200, "0.2 s"),
            (10_000, "10 s"),
            (60_000, "1 min"),
            (3_660_000, "1 h 1 min"),
            (100_000_000, "1 d 3 h"),
        ] {
            assert_eq!(since_start(Duration::from_millis(millis)), wanted);
        }
    }
}
