//! What a person sees: progress, findings, the table.

use std::time::Instant;

use crate::verdict::Verdict;

/// Lines with the time since the beginning of a run.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(crate) fn say(&mut self, what: &str) {
        println!("  {:6.1} s  {what}", self.seconds());
    }
}

/// A run and its result.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) verdict: Verdict,
}

impl Row {
    /// What was found, if anything was.
    pub(crate) fn explain(&self) {
        let verdict = &self.verdict;
        for story in &verdict.stories {
            println!("    {story}");
        }
        println!("    repeated by cause: {:?}", verdict.causes);
        for cost in verdict
            .kills
            .iter()
            .filter(|cost| cost.repeated > cost.allowed)
        {
            println!(
                "    a kill repeated {}, allowed {}",
                cost.repeated, cost.allowed
            );
        }
        if !verdict.is_good() {
            for fault in &verdict.faults {
                let seconds = |moment: u64| moment as f64 / 1e9;
                let (from, until) = (seconds(fault.from), seconds(fault.until));
                println!("    {from:8.3} to {until:8.3} s {}", fault.what);
            }
        }
    }
}

/// Prints the results of all runs.
pub(crate) fn table(rows: &[Row]) {
    println!(
        "\n{:>20} {:>6} {:>9} {:>10} {:>8} {:>6} {:>6} {:>6} {:>6} {:>5} {:>9} {:>15}",
        "seed",
        "s",
        "accepted",
        "delivered",
        "letters",
        "lost",
        "order",
        "over",
        "early",
        "odd",
        "repeated",
        "kills in bound"
    );
    for row in rows {
        let it = &row.verdict;
        let kills = it.kills.len();
        println!(
            "{:>20} {:>6.0} {:>9} {:>10} {:>8} {:>6} {:>6} {:>6} {:>6} {:>5} {:>9} {:>15}",
            row.seed,
            row.seconds,
            it.accepted,
            it.delivered,
            it.letters,
            it.lost,
            it.order,
            it.over,
            it.early,
            it.odd,
            it.duplicates,
            format!("{} of {kills}", kills - it.dear_kills()),
        );
    }
    let costs = || rows.iter().flat_map(|row| &row.verdict.kills);
    let repeated: usize = costs().map(|cost| cost.repeated).sum();
    let most = costs().map(|cost| cost.repeated).max().unwrap_or(0);
    println!(
        "after {} kills of a dispatcher with Kafka there: {repeated} repeated in all, {most} at most",
        costs().count()
    );
}
