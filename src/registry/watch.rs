//! Looks for changes, waits until they have settled, and publishes what came of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;

use super::files::Listing;
use super::state::State;
use super::{Resolution, Settings, Snapshot, resolve};
use crate::clock::Clock;

/// How often files are looked at. Polling sees what notifications miss: network file systems,
/// links whose target is exchanged, directories that come and go.
const POLL: Duration = Duration::from_millis(250);
/// How often while a change is seen, until two looks show the same.
const SETTLE: Duration = Duration::from_millis(100);
/// After so many looks a change is taken over though files go on changing, to stay within a second.
const MAX_LOOKS: u32 = 5;

/// Reads the manifests, then watches them until `stop`.
pub(super) async fn run(
    settings: Settings,
    clock: Clock,
    sender: channel::Sender<Arc<Snapshot>>,
    stop: CancellationToken,
) {
    let mut watcher = Watcher::new(settings, clock);
    loop {
        // File systems may block for as long as they like.
        let looking = tokio::task::spawn_blocking(move || {
            let snapshot = watcher.look();
            (watcher, snapshot)
        });
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = looking => looked,
        };
        let snapshot = match looked {
            Ok((same, snapshot)) => {
                watcher = same;
                snapshot
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends.
            Err(_) => return,
        };
        if let Some(snapshot) = snapshot {
            publish(&sender, snapshot);
        }
        let pause = if watcher.is_settled() { POLL } else { SETTLE };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Publishes `next` unless it is what is published already.
fn publish(sender: &channel::Sender<Arc<Snapshot>>, mut next: Snapshot) {
    sender.send_if_modified(|current| {
        if **current == next {
            return false;
        }
        report(current, &next);
        share(current, &mut next);
        *current = Arc::new(next);
        true
    });
}

fn report(before: &Snapshot, now: &Snapshot) {
    for problem in now
        .problems
        .iter()
        .filter(|new| !before.problems.contains(new))
    {
        tracing::warn!(%problem, "manifest problem");
    }
    tracing::info!(
        channels = now.channels.len(),
        subscriptions = now.subscriptions.len(),
        problems = now.problems.len(),
        "manifests in force"
    );
}

/// Puts what did not change in the same place in memory, so that a reader can tell by the pointer.
fn share(before: &Snapshot, next: &mut Snapshot) {
    for (name, channel) in &mut next.channels {
        keep_equal(before.channels.get(name), channel);
    }
    for (name, manifest) in &mut next.channel_manifests {
        keep_equal(before.channel_manifests.get(name), manifest);
    }
    for (name, entry) in &mut next.subscriptions {
        let Some(old) = before.subscriptions.get(name) else {
            continue;
        };
        keep_equal(Some(&old.manifest), &mut entry.manifest);
        if let Resolution::Resolved(subscription) = &mut entry.resolution {
            keep_equal(old.resolved(), subscription);
        }
    }
}

fn keep_equal<T: PartialEq>(old: Option<&Arc<T>>, new: &mut Arc<T>) {
    if let Some(old) = old.filter(|old| *old == new) {
        *new = Arc::clone(old);
    }
}

/// The files as they were last seen, and what is in force because of them.
#[derive(Debug)]
struct Watcher {
    settings: Settings,
    clock: Clock,
    state: State,
    /// Files that request headers were read from.
    secrets: BTreeSet<std::path::PathBuf>,
    settling: Settling<Listing>,
}

impl Watcher {
    fn new(settings: Settings, clock: Clock) -> Self {
        Self {
            settings,
            clock,
            state: State::default(),
            secrets: BTreeSet::new(),
            settling: Settling::default(),
        }
    }

    /// Looks once; a snapshot when the files were read.
    fn look(&mut self) -> Option<Snapshot> {
        let listing = Listing::take(&self.settings.paths, &self.secrets);
        if !self.settling.is_due(&listing) {
            return None;
        }
        let (reads, secrets) = listing.read();
        self.secrets = secrets;
        let mut problems = self.state.apply(reads, self.clock.now());
        let mut snapshot = resolve(
            &self.state.declared(),
            &self.settings.templates,
            &self.settings.defaults,
        );
        problems.append(&mut snapshot.problems);
        problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        snapshot.problems = problems;
        snapshot.loaded_once = true;
        Some(snapshot)
    }

    fn is_settled(&self) -> bool {
        self.settling.changing.is_none()
    }
}

/// Decides when files are read: at once at the start, and then when a change has settled, so
/// that a file that is being written is not taken for one that lost its second half.
#[derive(Debug)]
struct Settling<L> {
    /// What was read last.
    read: Option<L>,
    /// What differed from that at the last look, and how many looks ago it began.
    changing: Option<(L, u32)>,
    /// Read once more: a change within the grain of the file system's clock does not show.
    once_more: bool,
}

impl<L> Default for Settling<L> {
    fn default() -> Self {
        Self {
            read: None,
            changing: None,
            once_more: false,
        }
    }
}

impl<L: Clone + PartialEq> Settling<L> {
    /// Whether to read what shows `now`.
    fn is_due(&mut self, now: &L) -> bool {
        let changed = self.read.as_ref() != Some(now);
        let due = if changed {
            let looks = match &self.changing {
                _ if self.read.is_none() => MAX_LOOKS,
                Some((before, _)) if before == now => MAX_LOOKS,
                Some((_, looks)) => looks + 1,
                None => 1,
            };
            self.changing = (looks < MAX_LOOKS).then(|| (now.clone(), looks));
            looks >= MAX_LOOKS
        } else {
            self.changing = None;
            self.once_more
        };
        if due {
            self.read = Some(now.clone());
            self.once_more = changed;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_when_a_change_has_settled_and_once_more() {
        let mut settling = Settling::default();
        let mut due = |looks: &[u32]| {
            let due = looks.iter().map(|look| settling.is_due(look));
            due.collect::<Vec<_>>()
        };
        assert_eq!(due(&[1, 1, 1, 1]), [true, true, false, false], "start");
        assert_eq!(due(&[2, 2, 2, 2]), [false, true, true, false], "one change");
        assert_eq!(
            due(&[3, 4, 4, 4, 4]),
            [false, false, true, true, false],
            "two"
        );
        assert_eq!(due(&[5, 4, 4]), [false, false, false], "there and back");
        let endless = [false, false, false, false, true];
        assert_eq!(due(&[11, 12, 13, 14, 15]), endless, "no rest");
    }

    #[test]
    fn a_change_is_in_force_within_a_second() {
        assert!(POLL + MAX_LOOKS * SETTLE < Duration::from_secs(1));
    }
}
