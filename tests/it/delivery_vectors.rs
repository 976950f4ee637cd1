//! Runs `tests/vectors/delivery.json`: scripted subscribers, and what must become of the events.
//!
//! Cases run in waves: the channels and subscriptions of a wave are written at once, awaited until
//! Ready, and then every channel gets its events from a thread of its own.

mod case;
mod check;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::event::{self, Event};
use crate::harness::sink::{Answer, Fault, Seen, Sink};
use crate::harness::{Broker, Log, World, kafka};
use case::{
    Action, Case, EventSpec, Mode, On, Script, Step, Subscription, Unreachable, Vectors, Via,
};

/// How many channels are in use at a time.
const WAVE: usize = 35;
/// The longest that the events of a wave may take; the slowest case waits some seconds.
const LIMIT: Duration = Duration::from_secs(25);
/// How long nothing may come before a wave is taken to be over.
const QUIET: Duration = Duration::from_millis(800);

#[test]
fn embedded() {
    run(World::alone(Log::Embedded));
}

#[test]
fn kafka() {
    if let Some(log) = kafka::given() {
        run(World::alone(log));
    }
}

/// The cases that are on their way, as script and checks see them.
struct Run {
    namespace: String,
    cases: Vec<Case>,
    /// When an event was posted, by id.
    posted: Mutex<HashMap<String, Instant>>,
    /// A port where nothing listens.
    closed_port: u16,
}

fn run(world: World) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/delivery.json");
    let vectors: Vectors = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let run = Arc::new(Run {
        namespace: world.namespace.clone(),
        cases: vectors.cases,
        posted: Mutex::default(),
        closed_port: unused.local_addr().unwrap().port(),
    });
    drop(unused);
    let scripted = run.clone();
    let sink = Sink::new(move |seen| scripted.answer(seen));

    let mut broker = world.start();
    let mut topologies: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, case) in run
        .cases
        .iter()
        .enumerate()
        .filter(|(_, case)| !case.needs_restart())
    {
        topologies.entry(topology(case)).or_default().push(index);
    }
    let topologies: Vec<_> = topologies.into_values().collect();
    for wave in topologies.chunks(WAVE) {
        run.wave(&world, &broker, &sink, wave);
    }
    for (index, case) in run
        .cases
        .iter()
        .enumerate()
        .filter(|(_, case)| case.needs_restart())
    {
        broker = run.with_a_restart(&world, broker, &sink, index, case);
    }
    drop(broker);

    let mut failures = String::new();
    let mut failed = 0;
    for (index, case) in run.cases.iter().enumerate() {
        let errors = run.check(&sink, index, case);
        failed += usize::from(!errors.is_empty());
        for error in errors {
            failures.push_str(&format!("{}: {error}\n", case.name));
        }
    }
    assert!(
        failed == 0,
        "{failed} of {} cases failed:\n{failures}",
        run.cases.len()
    );
}

/// The name of the channel of a case.
fn topology(case: &Case) -> String {
    let name = case.group.as_ref().unwrap_or(&case.name);
    format!("v-{}", name.replace('_', "-"))
        .chars()
        .take(50)
        .collect()
}

/// What a sink is to a subscription; also the last part of its path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Subscriber,
    DeadLetter,
    Reply,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Subscriber => "subscriber",
            Self::DeadLetter => "dead-letter",
            Self::Reply => "reply",
        }
    }

    fn script(self, subscription: &Subscription) -> Option<&Script> {
        match self {
            Self::Subscriber => Some(&subscription.subscriber),
            Self::DeadLetter => subscription.dead_letter.as_ref(),
            Self::Reply => subscription.reply.as_ref(),
        }
    }
}

fn path(case: &Case, subscription: &str, role: Role) -> String {
    format!("/{}/{subscription}/{}", topology(case), role.name())
}

fn trap(index: usize) -> String {
    format!("/trap/{index}")
}

impl Run {
    /// The id of an event: it names its case, so that a shared sink knows the script.
    fn id(&self, index: usize, key: &str) -> String {
        format!("cf-{}-{index}-{key}", self.namespace)
    }

    /// The case and key of an event's id, or of an id that was made from it.
    fn case_of<'a>(&self, id: &'a str) -> Option<(usize, &'a str)> {
        let rest = id.strip_prefix("cf-")?.strip_prefix(&self.namespace)?;
        let mut parts = rest.strip_prefix('-')?.split('-');
        Some((parts.next()?.parse().ok()?, parts.next()?))
    }

    fn answer(&self, seen: &Seen) -> Answer {
        self.scripted(seen).unwrap_or_else(|| Answer::status(200))
    }

    fn scripted(&self, seen: &Seen) -> Option<Answer> {
        let (index, key) = self.case_of(seen.id())?;
        let case = self.cases.get(index)?;
        let (role, subscription) = case.subscriptions.iter().find_map(|(name, subscription)| {
            let roles = [Role::Subscriber, Role::DeadLetter, Role::Reply];
            let role = roles
                .into_iter()
                .find(|role| seen.path == path(case, name, *role))?;
            Some((role, subscription))
        })?;
        let script = role.script(subscription)?;
        let steps = script.scripts.get(key).unwrap_or(&script.script);
        let step = steps.get(seen.attempt - 1)?;
        let host = seen.message.header("host").unwrap_or_default();
        let trap = format!("http://{host}{}", trap(index));
        Some(answer(step, &|text| {
            let text = text
                .replace("{{id}}", seen.id())
                .replace("{{trap_url}}", &trap);
            with_dates(&text)
        }))
    }

    /// The manifests of a case's channel; its subscriptions; all that must be Ready.
    fn manifests(&self, sink: &Sink, index: usize, case: &Case) -> (String, Vec<String>) {
        let name = topology(case);
        let mut documents = Vec::new();
        let mut awaited = Vec::new();
        let mut channel = case.channel.clone().unwrap_or_else(|| json!({}));
        for (short, spec) in &case.subscriptions {
            let full = format!("{name}-{short}");
            let mut destination = |script: &Script, role: Role| {
                let uri = json!({"uri": sink.url(&path(case, short, role))});
                if script.via != Some(Via::Channel) {
                    return uri;
                }
                let between = format!("{full}-{}", role.name());
                documents.push(self.channel(&between, json!({})));
                documents.push(self.subscription(&between, &between, json!({"subscriber": uri})));
                awaited.push(between.clone());
                channel_ref(&between)
            };
            let subscriber = match spec.subscriber.unreachable {
                None => destination(&spec.subscriber, Role::Subscriber),
                Some(way) => json!({"uri": self.unreachable(way)}),
            };
            let mut delivery = spec.delivery.clone();
            if let Some(script) = &spec.dead_letter {
                let to = destination(script, Role::DeadLetter);
                match script.on {
                    Some(On::Channel) => channel["delivery"]["deadLetterSink"] = to,
                    None => delivery["deadLetterSink"] = to,
                }
            }
            let reply = spec
                .reply
                .as_ref()
                .map(|script| destination(script, Role::Reply));
            let mut body = json!({"subscriber": subscriber});
            for (field, value) in [("delivery", delivery), ("reply", reply.unwrap_or_default())] {
                if value.as_object().is_some_and(|fields| !fields.is_empty()) {
                    body[field] = value;
                }
            }
            let mut document = self.subscription(&full, &name, body);
            if spec.annotations.is_object() {
                document["metadata"]["annotations"] = spec.annotations.clone();
            }
            documents.push(document);
            awaited.push(full);
        }
        documents.push(self.channel(&name, channel));
        let text: Vec<_> = documents.iter().map(Value::to_string).collect();
        let trap = sink.url(&trap(index));
        (text.join("\n---\n").replace("{{trap_url}}", &trap), awaited)
    }

    fn channel(&self, name: &str, more: Value) -> Value {
        let mut spec =
            json!({"numPartitions": 1, "replicationFactor": 1, "retentionDuration": "PT1H"});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        json!({
            "apiVersion": "messaging.knative.dev/v1beta1",
            "kind": "KafkaChannel",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        })
    }

    fn subscription(&self, name: &str, channel: &str, mut spec: Value) -> Value {
        spec["channel"] = channel_ref(channel)["ref"].take();
        json!({
            "apiVersion": "messaging.knative.dev/v1",
            "kind": "Subscription",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        })
    }

    fn unreachable(&self, way: Unreachable) -> String {
        match way {
            Unreachable::Refused => format!("http://127.0.0.1:{}/nobody", self.closed_port),
            Unreachable::Dns => "http://no-such-host.invalid/nobody".to_owned(),
        }
    }

    fn wave(&self, world: &World, broker: &Broker, sink: &Sink, topologies: &[Vec<usize>]) {
        let mut awaited = Vec::new();
        for cases in topologies {
            let first = &self.cases[cases[0]];
            let (text, names) = self.manifests(sink, cases[0], first);
            world.write(&format!("{}.yaml", topology(first)), &text);
            awaited.extend(names);
        }
        broker.wait_for_subscriptions(&awaited);
        thread::scope(|scope| {
            for cases in topologies {
                scope.spawn(|| cases.iter().for_each(|index| self.fire(broker, *index)));
            }
        });
        let wave: Vec<usize> = topologies.iter().flatten().copied().collect();
        // What is missing after this is found by the checks, which say it better.
        sink.holds_within(LIMIT, |seen| self.are_complete(seen, &wave));
        sink.wait_for_quiet(QUIET);
        for cases in topologies {
            world.remove(&format!("{}.yaml", topology(&self.cases[cases[0]])));
        }
    }

    fn with_a_restart(
        &self,
        world: &World,
        broker: Broker,
        sink: &Sink,
        index: usize,
        case: &Case,
    ) -> Broker {
        let (text, names) = self.manifests(sink, index, case);
        world.write("restart.yaml", &text);
        broker.wait_for_subscriptions(&names);
        self.fire(&broker, index);
        let id = self.id(index, &case.events[0].key);
        sink.wait("the first attempt", LIMIT, |seen| {
            seen.iter().any(|seen| seen.id() == id)
        });
        broker.kill();
        let broker = world.start();
        sink.holds_within(LIMIT, |seen| self.are_complete(seen, &[index]));
        sink.wait_for_quiet(QUIET);
        world.remove("restart.yaml");
        broker
    }

    /// Posts the events of a case.
    fn fire(&self, broker: &Broker, index: usize) {
        let case = &self.cases[index];
        for spec in &case.events {
            thread::sleep(Duration::from_millis(spec.pause_before_ms));
            let event = self.event(index, spec);
            self.posted
                .lock()
                .unwrap()
                .insert(event.id().to_owned(), Instant::now());
            let answer = broker
                .post_with(&topology(case), &event, &spec.http_headers)
                .unwrap();
            assert_eq!(answer.status(), 202, "{}: {}", case.name, answer.text());
        }
    }

    fn event(&self, index: usize, spec: &EventSpec) -> Event {
        let mut event = Event::new(&self.id(index, &spec.key));
        event.attributes.extend(spec.attributes.clone());
        if let Some(content_type) = &spec.datacontenttype {
            event = event.with("datacontenttype", content_type);
        }
        if let Some(data) = &spec.data {
            event = event.with_data(data.as_bytes());
        }
        if spec.mode == Some(Mode::Structured) {
            event.mode = event::Mode::Structured;
        }
        event
    }
}

fn channel_ref(name: &str) -> Value {
    let api = "messaging.knative.dev/v1beta1";
    json!({"ref": {"apiVersion": api, "kind": "KafkaChannel", "name": name}})
}

/// Replaces `{{http_date:+2}}` and the like.
fn with_dates(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{{http_date:") else {
        return text.to_owned();
    };
    let (seconds, after) = rest.split_once("}}").unwrap();
    let seconds: i64 = seconds.parse().unwrap();
    let now = std::time::SystemTime::now();
    let shift = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        now - shift
    } else {
        now + shift
    };
    format!(
        "{before}{}{}",
        httpdate::fmt_http_date(time),
        with_dates(after)
    )
}

fn answer(step: &Step, fill: &dyn Fn(&str) -> String) -> Answer {
    let mut answer = Answer::status(step.status).after(Duration::from_millis(step.delay_ms));
    answer.early_hints = step.early.is_some();
    answer.fault = step.action.map(|action| match action {
        Action::Reset => Fault::Reset,
        Action::Close => Fault::Close,
        Action::Garbage => Fault::Garbage,
        Action::Partial => Fault::Partial,
        Action::Hang => Fault::Hang(Duration::from_millis(step.ms.unwrap_or(1000))),
    });
    if let Some(reply) = &step.ce {
        let mode = match reply.mode {
            Mode::Binary => event::Mode::Binary,
            Mode::Structured => event::Mode::Structured,
        };
        let filled = reply
            .attributes
            .iter()
            .map(|(name, value)| (name.clone(), fill(value)));
        let mut event = Event {
            mode,
            attributes: filled.collect(),
            data: reply.data.as_ref().map(|data| data.clone().into_bytes()),
        };
        if let Some(content_type) = &reply.datacontenttype {
            event = event.with("datacontenttype", content_type);
        }
        (answer.headers, answer.body) = event.to_http();
    }
    let headers = step
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), fill(value)));
    answer.headers.extend(headers);
    if let Some(body) = &step.body {
        answer.body = fill(&body.expand()).into_bytes();
    }
    answer
}
