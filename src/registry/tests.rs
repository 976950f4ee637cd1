//! Documents to snapshots in tables, and real files that change.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::state::{Read, State};
use super::*;
use crate::channel::Sink;
use crate::clock::Clock;
use crate::manifest::{NoSecrets, parse};

fn channel_text(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: messaging.knative.dev/v1beta1\nkind: KafkaChannel\n\
         metadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn subscription_text(name: &str, channel: &str, more: &str) -> String {
    format!(
        "---\napiVersion: levada.dev/v1\nkind: Subscription\nmetadata: {{name: {name}}}\nspec:\n  \
         channel: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: {channel}}}\n  \
         {more}\n"
    )
}

const SUBSCRIBER: &str = "subscriber: {uri: 'http://a/'}";

fn to_channel(name: &str) -> String {
    format!("{{ref: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: {name}}}}}")
}

fn name(text: &str) -> ResourceName {
    text.parse().unwrap()
}

fn read(file: &str, text: &str) -> Read {
    Read::File(file.into(), parse(file, text.as_bytes(), &NoSecrets))
}

/// The snapshot of one state after another of some files.
#[derive(Default)]
struct Table(State);

impl Table {
    fn apply(&mut self, reads: Vec<Read>) -> Snapshot {
        let mut problems = self.0.apply(reads, UnixMillis(7));
        let mut snapshot = resolve(
            &self.0.declared(),
            &Templates::default(),
            &DeliveryOptions::default(),
        );
        problems.append(&mut snapshot.problems);
        snapshot.problems = problems;
        snapshot
    }

    fn text(&mut self, text: &str) -> Snapshot {
        self.apply(vec![read("a.yaml", text)])
    }
}

fn snapshot(text: &str) -> Snapshot {
    Table::default().text(text)
}

fn unresolved(snapshot: &Snapshot, subscription: &str) -> Option<Reason> {
    match &snapshot.subscriptions[&name(subscription)].resolution {
        Resolution::Resolved(_) => None,
        Resolution::Unresolved { reason, .. } => Some(*reason),
    }
}

fn shown(snapshot: &Snapshot) -> Vec<String> {
    snapshot.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_subscription_is_resolved_with_its_names() {
    let delivery =
        "delivery: {deadLetterSink: {ref: {apiVersion: v1, kind: Service, name: d}, uri: in}}";
    let reply = "reply: {ref: {apiVersion: levada.dev/v1, kind: Sink, name: r}, uri: '/y?z'}";
    let text = channel_text("orders", "{}")
        + &subscription_text(
            "s1",
            "orders",
            &format!("{SUBSCRIBER}\n  {reply}\n  {delivery}"),
        )
        + "---\napiVersion: levada.dev/v1\nkind: Sink\nmetadata: {name: r}\n\
           spec: {uri: 'https://r.example.com/x', headers: {x-a: b}}\n";
    let snapshot = snapshot(&text);
    assert_eq!(shown(&snapshot), [] as [String; 0]);
    let entry = &snapshot.subscriptions[&name("s1")];
    let subscription = entry.resolved().unwrap();
    assert_eq!(
        subscription.topic.as_str(),
        "knative-messaging-kafka.default.orders"
    );
    assert_eq!(
        subscription.group.to_string(),
        "kafka.default.orders.default.s1"
    );
    assert_eq!(subscription.uid, "default.s1");
    assert_eq!(subscription.subscriber.url(), "http://a/");
    assert_eq!(
        subscription.dead_letter.as_ref().unwrap().url(),
        "http://d.default.svc/in"
    );
    let Some(Sink::Http(reply)) = &subscription.reply else {
        panic!()
    };
    assert_eq!(&*reply.url, "https://r.example.com/y?z");
    assert_eq!(reply.headers[0].1, "b");
    assert_eq!(entry.manifest.created, UnixMillis(7));
    assert_eq!(entry.manifest.spec["subscriber"]["uri"], "http://a/");
}

#[test]
fn the_subscriptions_headers_go_to_its_subscriber_alone_and_win() {
    let sink = "---\napiVersion: levada.dev/v1\nkind: Sink\nmetadata: {name: r}\n\
                spec: {uri: 'http://r/', headers: {x-a: sink, x-b: sink}}\n";
    let to = "{ref: {apiVersion: levada.dev/v1, kind: Sink, name: r}}";
    let more = format!(
        "subscriber: {to}\n  reply: {to}\n  delivery: {{headers: {{x-a: own}}, deadLetterSink: {{uri: 'http://d/'}}}}"
    );
    let text = channel_text("orders", "{}") + &subscription_text("s1", "orders", &more) + sink;
    let snapshot = snapshot(&text);
    let subscription = snapshot.subscriptions[&name("s1")].resolved().unwrap();
    let headers = |sink: &Sink| match sink {
        Sink::Http(sink) => sink
            .headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect::<Vec<_>>(),
        Sink::Channel { .. } => panic!(),
    };
    assert_eq!(headers(&subscription.subscriber), ["x-a=own", "x-b=sink"]);
    assert_eq!(
        headers(subscription.reply.as_ref().unwrap()),
        ["x-a=sink", "x-b=sink"]
    );
    assert_eq!(
        headers(subscription.dead_letter.as_ref().unwrap()),
        [] as [String; 0]
    );
}

#[test]
fn references_to_nothing_have_their_reasons() {
    let nothing = to_channel("nothing");
    for (channel, more, reason) in [
        (
            "nothing",
            SUBSCRIBER.to_owned(),
            Reason::ChannelReferenceFailed,
        ),
        (
            "orders",
            format!("subscriber: {nothing}"),
            Reason::SubscriberResolveFailed,
        ),
        (
            "orders",
            format!("{SUBSCRIBER}\n  reply: {nothing}"),
            Reason::ReplyResolveFailed,
        ),
        (
            "orders",
            format!("{SUBSCRIBER}\n  delivery: {{deadLetterSink: {nothing}}}"),
            Reason::DeadLetterSinkResolveFailed,
        ),
    ] {
        let text = channel_text("orders", "{}") + &subscription_text("s1", channel, &more);
        let snapshot = snapshot(&text);
        assert_eq!(unresolved(&snapshot, "s1"), Some(reason), "{more}");
        // What it points to may still come: nothing is wrong with the manifest.
        assert_eq!(shown(&snapshot), [] as [String; 0]);
    }
}

#[test]
fn a_channel_gives_its_dead_letter_sink_and_its_delivery() {
    let text = channel_text("dead", "{}")
        + &channel_text(
            "orders",
            &format!(
                "{{delivery: {{retry: 4, timeout: PT9S, deadLetterSink: {}}}}}",
                to_channel("dead")
            ),
        )
        + &subscription_text(
            "s1",
            "orders",
            &format!("{SUBSCRIBER}\n  delivery: {{retry: 1}}"),
        );
    let snapshot = snapshot(&text);
    let subscription = snapshot.subscriptions[&name("s1")].resolved().unwrap();
    assert_eq!(
        (
            subscription.delivery.retry,
            subscription.delivery.timeout.as_secs()
        ),
        (1, 9)
    );
    let dead = snapshot.channels[&name("orders")].dead_letter.clone();
    assert!(matches!(&dead, Some(Sink::Channel { name, .. }) if name.name() == "dead"));
    assert_eq!(subscription.dead_letter, dead);
}

#[test]
fn circles_are_broken_at_the_newest_link() {
    let link = |name: &str, from: &str, to: &str| {
        let more = format!(
            "{SUBSCRIBER}\n  delivery: {{deadLetterSink: {}}}",
            to_channel(to)
        );
        subscription_text(name, from, &more)
    };
    let channels = channel_text("a", "{}") + &channel_text("b", "{}");
    let own = snapshot(&(channels.clone() + &link("s1", "a", "a")));
    assert_eq!(
        unresolved(&own, "s1"),
        Some(Reason::DeadLetterSinkResolveFailed)
    );
    assert!(shown(&own)[0].contains("spec.delivery.deadLetterSink: events would go round"));

    // z is older than a, so a is the one that is refused.
    let mut table = Table::default();
    let first = channels + &link("z", "a", "b");
    assert_eq!(unresolved(&table.text(&first), "z"), None);
    let both = table.text(&(first + &link("a", "b", "a")));
    assert_eq!(unresolved(&both, "z"), None);
    assert_eq!(
        unresolved(&both, "a"),
        Some(Reason::DeadLetterSinkResolveFailed)
    );
}

#[test]
fn two_subscriptions_never_share_a_group() {
    let with_uid = |name: &str| {
        subscription_text(name, "orders", SUBSCRIBER).replace(
            &format!("{{name: {name}}}"),
            &format!("{{name: {name}, uid: u}}"),
        )
    };
    let snapshot = snapshot(&(channel_text("orders", "{}") + &with_uid("s1") + &with_uid("s2")));
    assert_eq!(unresolved(&snapshot, "s1"), None);
    assert_eq!(
        unresolved(&snapshot, "s2"),
        Some(Reason::ChannelReferenceFailed)
    );
    assert!(shown(&snapshot)[0].contains("metadata.uid: consumer group kafka.default.orders.u"));
}

#[test]
fn names_that_templates_make_are_checked() {
    let declared = |text: &str| {
        let mut state = State::default();
        let problems = state.apply(vec![read("a.yaml", text)], UnixMillis(0));
        assert_eq!(problems, []);
        state.declared()
    };
    let long = "x".repeat(110);
    let templates = Templates::try_new(&format!("{long}{{namespace}}{{name}}"), "{uid}").unwrap();
    let channel = "y".repeat(63);
    let text =
        channel_text(&channel, "{}") + &subscription_text(&"z".repeat(63), &channel, SUBSCRIBER);
    let snapshot = resolve(&declared(&text), &templates, &DeliveryOptions::default());
    assert_eq!(snapshot.channels.len(), 1);
    assert!(
        shown(&snapshot)[0].contains("249"),
        "{:?}",
        shown(&snapshot)
    );

    let templates = Templates::try_new(
        &format!("{}{{namespace}}{{name}}", "x".repeat(240)),
        "{uid}",
    );
    let snapshot = resolve(
        &declared(&text),
        &templates.unwrap(),
        &DeliveryOptions::default(),
    );
    assert_eq!(snapshot.channels.len(), 0);
    assert!(shown(&snapshot)[0].starts_with("a.yaml:2: metadata.name: topic name"));
}

#[test]
fn a_bad_file_or_document_keeps_the_last_good_state() {
    let good = channel_text("orders", "{}") + &subscription_text("s1", "orders", SUBSCRIBER);
    let mut table = Table::default();
    let before = table.text(&good);
    for (bad, line) in [
        (
            good.replace("metadata: {name: s1}", "metadata: {name: s1"),
            10,
        ),
        (good.replace("'http://a/'", "'ftp://a/'"), 12),
        (good.replace("subscriber:", "subscribe:"), 11),
        (good.replace("spec: {}", "spec: {numPartitions: 4}"), 2),
        (good[..good.len() - 10].to_owned(), 12),
    ] {
        let after = table.text(&bad);
        assert_eq!(after.channels, before.channels, "{bad}");
        assert_eq!(after.subscriptions, before.subscriptions, "{bad}");
        assert_eq!(after.problems[0].line, line, "{:?}", shown(&after));
    }
    assert_eq!(shown(&table.text(&good)), [] as [String; 0]);
    let gone = table.text(&channel_text("orders", "{}"));
    assert_eq!((gone.channels.len(), gone.subscriptions.len()), (1, 0));
}

#[test]
fn files_that_cannot_be_read_keep_theirs_and_deleted_ones_do_not() {
    let mut table = Table::default();
    let a = || read("m/a.yaml", &channel_text("a", "{}"));
    let b = || read("m/b.yaml", &channel_text("b", "{}"));
    assert_eq!(table.apply(vec![a(), b()]).channels.len(), 2);
    let denied = table.apply(vec![
        a(),
        Read::UnreadableFile("m/b.yaml".into(), "denied".into()),
    ]);
    assert_eq!(denied.channels.len(), 2);
    assert_eq!(
        shown(&denied),
        ["m/b.yaml: denied; the resource it declared stays in force"]
    );
    let no_list = Read::UnreadableDirectory("m".into(), "gone".into());
    assert_eq!(table.apply(vec![no_list]).channels.len(), 2);
    assert_eq!(table.apply(vec![a()]).channels.len(), 1);
    let missing = table.apply(vec![Read::MissingFile("m/a.yaml".into())]);
    assert_eq!((missing.channels.len(), missing.problems.len()), (0, 1));
}

#[test]
fn a_resource_that_moves_keeps_its_state() {
    let mut table = Table::default();
    let text = channel_text("orders", "{}");
    table.apply(vec![read("b.yaml", &text)]);
    // Declared twice, the first file counts; nothing changes by it.
    let twice = table.apply(vec![read("a.yaml", &text), read("b.yaml", &text)]);
    assert!(shown(&twice)[0].starts_with("b.yaml:2: metadata.name: channel default/orders is"));
    let moved = table.apply(vec![read("a.yaml", &text)]);
    assert_eq!(moved.channels[&name("orders")].generation, 1);
    // What a file says may be refused: all the same the resource is now its own.
    for (file, refused) in [
        ("c.yaml", "{numPartitions: 9}"),
        ("d.yaml", "{colour: blue}"),
    ] {
        table.apply(vec![read(file, &channel_text("orders", refused))]);
        assert_eq!(
            table.apply(vec![read(file, "a: [")]).channels.len(),
            1,
            "{file}"
        );
    }
}

#[test]
fn generations_count_changes() {
    let mut table = Table::default();
    let with = |retry: &str| {
        channel_text("orders", "{}")
            + &subscription_text(
                "s1",
                "orders",
                &format!("{SUBSCRIBER}\n  delivery: {{retry: {retry}}}"),
            )
    };
    let mut generation = |text: &str| table.text(text).subscriptions[&name("s1")].generation;
    assert_eq!(generation(&with("1")), 1);
    assert_eq!(generation(&format!("# a comment\n{}", with("1"))), 1);
    assert_eq!(generation(&with("2")), 2);
    assert_eq!(generation(&with("-2")), 2);
    assert_eq!(generation(&with("3")), 3);
    let given = with("3").replace("{name: s1}", "{name: s1, generation: 40}");
    assert_eq!(generation(&given), 40);
}

#[test]
fn a_uid_that_changes_is_refused() {
    let mut table = Table::default();
    let text = channel_text("orders", "{}") + &subscription_text("s1", "orders", SUBSCRIBER);
    table.text(&text);
    let other = table.text(&text.replace("{name: s1}", "{name: s1, uid: new}"));
    assert!(shown(&other)[0].contains("metadata.uid: immutable"));
    assert_eq!(other.subscriptions[&name("s1")].uid, "default.s1");
}

/// Waits for a snapshot that is as wanted.
async fn until(registry: &Registry, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let mut snapshots = registry.subscribe();
    let found = timeout(Duration::from_secs(10), snapshots.wait_for(|s| wanted(s))).await;
    match found {
        Ok(found) => Arc::clone(&found.unwrap()),
        Err(_) => panic!("it never came to: {:?}", registry.snapshot()),
    }
}

fn start(directory: &Path) -> (Registry, Tasks) {
    let tasks = Tasks::new();
    let settings = Settings {
        paths: vec![directory.to_owned()],
        templates: Templates::default(),
        defaults: DeliveryOptions::default(),
    };
    let registry = Registry::load_and_watch(settings, Clock::system(), &tasks);
    (registry, tasks)
}

#[tokio::test]
async fn files_are_read_again_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let (registry, tasks) = start(directory.path());
    let empty = until(&registry, |s| s.loaded_once).await;
    assert_eq!((empty.channels.len(), empty.problems.len()), (0, 0));

    fs::write(file("a.yaml"), channel_text("a", "{}")).unwrap();
    fs::write(file(".b.yaml"), channel_text("hidden", "{}")).unwrap();
    fs::write(file("c.txt"), "not one").unwrap();
    let one = until(&registry, |s| s.channels.len() == 1).await;
    assert_eq!(one.problems, []);

    // An editor's way: a new file is moved over the old one.
    let text = channel_text("a", "{}") + &subscription_text("s1", "a", SUBSCRIBER);
    fs::write(file("a.yaml.tmp"), text).unwrap();
    fs::rename(file("a.yaml.tmp"), file("a.yaml")).unwrap();
    let two = until(&registry, |s| s.subscriptions.len() == 1).await;
    let (old, new) = (&one.channels[&name("a")], &two.channels[&name("a")]);
    assert!(
        Arc::ptr_eq(old, new),
        "what did not change stays the same object"
    );

    fs::rename(file("a.yaml"), file("z.yaml")).unwrap();
    until(&registry, |s| {
        s.channel_manifests[&name("a")].file.ends_with("z.yaml")
    })
    .await;
    fs::remove_file(file("z.yaml")).unwrap();
    until(&registry, |s| s.channels.is_empty()).await;
    tasks.drain(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_half_written_file_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let text = channel_text("a", "{}") + &subscription_text("s1", "a", SUBSCRIBER);
    fs::write(&file, &text).unwrap();
    let (registry, tasks) = start(directory.path());
    let good = until(&registry, |s| s.subscriptions.len() == 1).await;
    fs::write(&file, &text[..text.len() - 5]).unwrap();
    let half = until(&registry, |s| !s.problems.is_empty()).await;
    assert_eq!(half.subscriptions, good.subscriptions);
    assert_eq!(half.problems[0].line, 12);
    fs::write(&file, text.replace("http://a/", "http://b/")).unwrap();
    let whole = until(&registry, |s| s.problems.is_empty()).await;
    let subscription = whole.subscriptions[&name("s1")].resolved().unwrap().clone();
    assert_eq!(
        (
            subscription.subscriber.url().as_str(),
            subscription.generation
        ),
        ("http://b/", 2)
    );
    tasks.drain(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_directory_may_come_later_and_links_may_be_exchanged() {
    let directory = tempfile::tempdir().unwrap();
    let manifests = directory.path().join("manifests");
    let (registry, tasks) = start(&manifests);
    let missing = until(&registry, |s| s.loaded_once).await;
    assert!(missing.problems[0].message.contains("does not exist"));

    // As Kubernetes mounts a config map: links by way of a link that is exchanged.
    for (version, channel) in [("..1", "a"), ("..2", "b")] {
        let version = directory.path().join(version);
        fs::create_dir(&version).unwrap();
        fs::write(version.join("m.yaml"), channel_text(channel, "{}")).unwrap();
    }
    let data = directory.path().join("..data");
    std::os::unix::fs::symlink(directory.path().join("..1"), &data).unwrap();
    fs::create_dir(&manifests).unwrap();
    std::os::unix::fs::symlink(data.join("m.yaml"), manifests.join("m.yaml")).unwrap();
    let first = until(&registry, |s| s.channels.len() == 1).await;
    assert!(first.problems.is_empty() && first.channels.contains_key(&name("a")));

    let next = directory.path().join("..next");
    std::os::unix::fs::symlink(directory.path().join("..2"), &next).unwrap();
    fs::rename(&next, &data).unwrap();
    until(&registry, |s| s.channels.contains_key(&name("b"))).await;
    tasks.drain(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_secret_that_changes_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let more = format!("{SUBSCRIBER}\n  delivery: {{headers: {{x-key: '${{file:key}}'}}}}");
    let text = channel_text("a", "{}") + &subscription_text("s1", "a", &more);
    fs::write(directory.path().join("a.yaml"), text).unwrap();
    let (registry, tasks) = start(directory.path());
    let missing = until(&registry, |s| s.loaded_once).await;
    assert_eq!(missing.problems[0].field, "spec.delivery.headers.x-key");
    for key in ["one", "two"] {
        fs::write(directory.path().join("key"), format!("{key}\n")).unwrap();
        until(&registry, |s| {
            let entry = s.subscriptions.get(&name("s1"));
            matches!(
                entry.and_then(|entry| entry.resolved()).map(|s| &s.subscriber),
                Some(Sink::Http(sink)) if sink.headers[0].1 == key
            )
        })
        .await;
    }
    tasks.drain(Duration::from_secs(5)).await.unwrap();
}
