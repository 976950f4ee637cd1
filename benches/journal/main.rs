//! The journal by itself: what a message costs to write, what it takes on disk, and how long pages
//! take. `cargo bench --bench journal`; `MESSAGES` sets how many (1,000,000), `JOURNAL` names a
//! directory that is kept and, when it is filled already, used as it is.

#![expect(clippy::print_stdout, reason = "the table is the bench's result")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

mod fill;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use levada::channel::ResourceName;
use levada::clock::{Clock, UnixMillis};
use levada::journal::sqlite::{Limits, SqliteReader, Store};
use levada::journal::{
    Bounds, Filter, Page, PageRequest, Reader as _, Recorder, Span, Status, Writer,
};

/// How often each question is asked.
const TIMES: usize = 30;
const MESSAGES: u64 = 1_000_000;

fn main() {
    let messages = std::env::var("MESSAGES").map_or(MESSAGES, |text| {
        text.parse().expect("MESSAGES is a whole number")
    });
    let kept = std::env::var_os("JOURNAL").map(PathBuf::from);
    let scratch = tempfile::tempdir().expect("a directory can be made");
    let directory = kept.unwrap_or_else(|| scratch.path().join("journal"));
    let store = if directory.join("segment-000001.db").exists() {
        Store::open(&directory, "node-1", Limits::default()).expect("the journal can be opened")
    } else {
        written(&directory, messages)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime
        .expect("a runtime can be built")
        .block_on(asked(store));
}

/// Fills the journal and prints what that took.
fn written(directory: &Path, messages: u64) -> Store {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let mut next = 0;
    let store = fill::fill(directory, messages, |so_far| {
        if so_far >= next {
            eprintln!("{so_far} of {messages} messages");
            next += (messages / 10).max(1);
        }
    });
    let micros = |seconds: f64| seconds * 1e6 / messages as f64;
    let bytes: u64 = std::fs::read_dir(directory)
        .expect("the journal is there")
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum();
    println!("write {messages} messages, one thread, making them included");
    println!(
        "  {:.1} us a message, {:.1} us CPU; {:.0} bytes a message",
        micros(began.elapsed().as_secs_f64()),
        micros(cpu_seconds() - cpu),
        bytes as f64 / messages as f64
    );
    store
}

/// CPU seconds of this process, user and system.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    // USER_HZ is 100 on every Linux that Rust runs on.
    after_name
        .split(' ')
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<f64>().unwrap_or(0.0) / 100.0)
        .sum()
}

async fn asked(store: Store) {
    let registry = prometheus::Registry::new();
    let started = Recorder::start(store, Clock::system(), Bounds::default(), &registry);
    let (recorder, reader, writer): (Recorder, SqliteReader, Writer) =
        started.expect("the journal starts");
    let reach = reader.reach().await.expect("the journal answers");
    println!(
        "\nask {} messages, {:.2} GB, {TIMES} times each",
        reach.messages,
        reach.bytes as f64 / 1e9
    );
    println!(
        "{:<52}{:>10}{:>10}{:>8}",
        "question", "median ms", "most ms", "found"
    );
    for (name, filter) in questions(reach.messages) {
        pages(&reader, name, &filter).await;
    }
    one_message(&reader).await;
    counts(&reader, reach.messages).await;
    recorder.close(writer, Duration::from_secs(10)).await;
}

fn questions(messages: u64) -> Vec<(&'static str, Filter)> {
    let all = Filter::default;
    let sub = |number| vec![fill::name(number)];
    let middle = fill::START.plus(Duration::from_millis(messages / 4));
    let orders = ResourceName::try_new("bench", "orders").expect("it is a label");
    let with = |change: &dyn Fn(&mut Filter)| {
        let mut filter = all();
        change(&mut filter);
        filter
    };
    let undelivered = vec![Status::Undelivered];
    vec![
        ("newest", all()),
        ("a subscription", with(&|f| f.subscription = sub(42))),
        ("a channel", with(&|f| f.channel = vec![orders.clone()])),
        ("undelivered", with(&|f| f.status = undelivered.clone())),
        (
            "undelivered of a subscription",
            with(&|f| {
                f.status = undelivered.clone();
                f.subscription = sub(57);
            }),
        ),
        (
            "undelivered of one that has none",
            with(&|f| {
                f.status = undelivered.clone();
                f.subscription = sub(42);
            }),
        ),
        ("delivered", with(&|f| f.status = vec![Status::Delivered])),
        (
            "retrying, of which there are none",
            with(&|f| f.retrying = true),
        ),
        (
            "http_404 of a subscription",
            with(&|f| {
                f.reason = vec!["http_404".into()];
                f.subscription = sub(57);
            }),
        ),
        ("http_404", with(&|f| f.reason = vec!["http_404".into()])),
        (
            "http_599, which is nowhere",
            with(&|f| f.reason = vec!["http_599".into()]),
        ),
        (
            "a type",
            with(&|f| f.event_type = Some("shop.order.paid".into())),
        ),
        (
            "a type that is nowhere",
            with(&|f| f.event_type = Some("nothing".into())),
        ),
        (
            "a source",
            with(&|f| f.event_source = Some("/shops/7".into())),
        ),
        (
            "a source that its subscription never has",
            with(&|f| {
                f.event_source = Some("/shops/7".into());
                f.subscription = sub(42);
            }),
        ),
        (
            "an event id",
            with(&|f| {
                f.event_id = Some(fill::event_id(7));
            }),
        ),
        (
            "an event id that is nowhere",
            with(&|f| f.event_id = Some("nothing".into())),
        ),
        (
            "before a time in the middle",
            with(&|f| f.to = Some(middle)),
        ),
        (
            "a millisecond in the middle",
            with(&|f| {
                f.from = Some(middle);
                f.to = Some(middle.plus(Duration::from_millis(1)));
            }),
        ),
        ("before everything", with(&|f| f.to = Some(UnixMillis(1)))),
    ]
}

/// Times a page, then the one after it, by turns.
async fn pages(reader: &SqliteReader, name: &str, filter: &Filter) {
    let mut request = PageRequest {
        after: None,
        before: None,
        size: 50,
    };
    let (mut times, mut found) = (Vec::new(), 0);
    for _ in 0..TIMES {
        let began = Instant::now();
        let page: Page<_> = reader
            .list(filter, &request)
            .await
            .expect("the journal answers");
        times.push(began.elapsed());
        found = found.max(page.items.len());
        request.after = page.after;
    }
    print(name, &mut times, found);
}

/// Times the whole story of messages from all over.
async fn one_message(reader: &SqliteReader) {
    let all = Filter::default();
    let mut request = PageRequest {
        after: None,
        before: None,
        size: 250,
    };
    let mut ids = Vec::new();
    for _ in 0..TIMES {
        let page = reader
            .list(&all, &request)
            .await
            .expect("the journal answers");
        ids.extend(page.items.last().map(|message| message.id.clone()));
        request.after = page.after;
    }
    let mut times = Vec::new();
    for id in &ids {
        let began = Instant::now();
        let story = reader.story(id).await.expect("the journal answers");
        assert!(story.is_some_and(|story| !story.logs.is_empty()));
        times.push(began.elapsed());
    }
    print("the story of a message", &mut times, 1);
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let began = Instant::now();
        let story = reader.story("0123456789abcdef-0-1").await;
        assert_eq!(story.expect("the journal answers"), None);
        times.push(began.elapsed());
    }
    print("the story of one that is not there", &mut times, 0);
}

/// Times charts and reasons over everything.
async fn counts(reader: &SqliteReader, messages: u64) {
    let span = Span {
        from: fill::START,
        to: fill::START.plus(Duration::from_millis(messages / 2 + 60_000)),
    };
    let name = fill::name(57);
    let (mut charts, mut reasons) = (Vec::new(), Vec::new());
    let (mut points, mut kinds) = (0, 0);
    for _ in 0..TIMES {
        let began = Instant::now();
        let chart = reader.chart(None, span, 5).await;
        charts.push(began.elapsed());
        points = chart.expect("the journal answers").len();
        let began = Instant::now();
        let found = reader.reasons(&name, span).await;
        reasons.push(began.elapsed());
        kinds = found.expect("the journal answers").len();
    }
    print("a chart of all subscriptions", &mut charts, points);
    print("the reasons of a subscription", &mut reasons, kinds);
}

fn print(name: &str, times: &mut [Duration], found: usize) {
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map_or(0.0, Duration::as_secs_f64) * 1e3;
    println!(
        "{name:<52}{:>10.2}{:>10.2}{found:>8}",
        ms(times.get(times.len() / 2)),
        ms(times.last())
    );
}
