use serde_json::json;

use super::*;
use crate::admin::ReadinessCheck;
use crate::channel::ResourceName;
use crate::delivery::{AttemptReport, Failure, Reason};
use crate::dispatch::DispatchMetrics;
use crate::log::{Offset, Partition};
use crate::status::Lag;

struct View;

impl AdminView for View {
    fn channels(&self) -> Vec<Value> {
        vec![json!({ "metadata": { "namespace": "prod", "name": "orders" } })]
    }

    fn subscriptions(&self) -> Vec<Value> {
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        let named = |name| {
            json!({
                "metadata": { "namespace": "prod", "name": name },
                "spec": { "channel": { "name": "orders" } },
                "status": { "conditions": ready },
            })
        };
        vec![named("archive"), named("billing")]
    }

    fn lag(&self, name: &ResourceName) -> Option<Lag> {
        (name.name() == "billing").then(|| Lag {
            records: 9,
            untried: 4,
            oldest_untried: Some(UnixMillis(500_000)),
            at: UnixMillis(530_000),
            ..Lag::default()
        })
    }

    fn committed(&self, _: &ResourceName, _: Partition) -> Option<Offset> {
        None
    }

    fn problems(&self) -> Vec<Value> {
        Vec::new()
    }

    fn readiness(&self) -> Vec<ReadinessCheck> {
        Vec::new()
    }
}

fn failed() -> AttemptReport {
    AttemptReport {
        started: UnixMillis(0),
        duration: Duration::from_millis(40),
        request: None,
        answer: None,
        result: Err(Failure {
            code: Some(503),
            ..Failure::without_answer(Reason::Http(503), "")
        }),
    }
}

#[test]
fn attempts_become_figures_of_the_last_minutes() {
    let registry = prometheus::Registry::new();
    let metrics = DispatchMetrics::register(&registry).unwrap();
    let clock = Clock::fixed(UnixMillis(600_000));
    let watch = Watch::new(registry, Arc::new(View), clock.clone());
    let billing = ResourceName::try_new("prod", "billing").unwrap();
    let handle = metrics.subscription(&billing);
    for _ in 0..4 {
        handle.attempt(&failed());
    }
    let lag = |records| Lag {
        records,
        ..Lag::default()
    };
    metrics.lag(&billing, &lag(9));
    watch.look();
    clock.set(UnixMillis(630_000));
    handle.attempt(&failed());
    watch.look();
    let report = watch.report();
    let one = &report.subscriptions[0];
    assert_eq!(one.name, billing);
    assert_eq!(one.state(), State::Failing);
    assert_eq!(one.verdict.reason, "503 from the subscriber");
    assert_eq!(one.since, UnixMillis(600_000));
    assert_eq!(one.recent.attempts(), 5);
    assert_eq!(one.unfinished(), Some(9));
    assert_eq!(one.channel, "prod/orders");
    assert_eq!(one.untried_for(), Some(Duration::from_secs(30)));
    assert_eq!(one.behind_for, Some(Duration::from_secs(30)));
    assert_eq!(one.minutes.len(), 60);
    assert_eq!(one.minutes[59], MinuteCounts { ok: 0, failed: 5 });
    assert_eq!(one.p95, Some(Duration::from_millis(50)));
    assert_eq!(report.need_attention(), 1);
    assert_eq!(report.channels.values().next().unwrap().subscriptions, 2);
    // An hour later all of it is forgotten.
    clock.set(UnixMillis(600_000 + 3_700_000));
    metrics.lag(&billing, &lag(0));
    watch.look();
    let report = watch.report();
    assert_eq!(report.need_attention(), 0);
    assert_eq!(report.subscriptions[1].state(), State::Idle);
    assert_eq!(report.subscriptions[1].recent, Counts::default());
}

#[test]
fn what_waits_for_its_first_attempt_is_added_up() {
    let clock = Clock::fixed(UnixMillis(600_000));
    let watch = Watch::new(prometheus::Registry::new(), Arc::new(View), clock);
    watch.look();
    let report = watch.report();
    let name = |name| [ResourceName::try_new("prod", name).unwrap()];
    assert_eq!(report.untried(&[], &[]), Some(4));
    assert_eq!(report.untried(&name("billing"), &name("orders")), Some(4));
    assert_eq!(
        report.untried(&name("archive"), &[]),
        None,
        "it is not known"
    );
    assert_eq!(report.untried(&[], &name("other")), None);
}
