//! The journal by itself: what a message costs to write, what it takes on disk, and how long pages
//! take. `cargo bench --bench journal`; `MESSAGES` sets how many (1,000,000). `JOURNAL` names a
//! directory that is kept, `POSTGRES` the URL of a database in place of files; one that is filled
//! already is used as it is.

#![expect(clippy::print_stdout, reason = "the table is the bench's result")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

mod fill;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use levada::channel::ResourceName;
use levada::clock::UnixMillis;
use levada::journal::{Filter, Keeper, Page, PageRequest, Reader, Span, Status, postgres, sqlite};

/// How often each question is asked.
const TIMES: usize = 30;
const MESSAGES: u64 = 1_000_000;

/// Where it is written, and where it is asked.
type Journal = (Box<dyn Keeper>, Arc<dyn Reader>);

fn main() {
    let messages = std::env::var("MESSAGES").map_or(MESSAGES, |text| {
        text.parse().expect("MESSAGES is a whole number")
    });
    let scratch = tempfile::tempdir().expect("a directory can be made");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let (mut keeper, reader) = match std::env::var("POSTGRES") {
        Ok(url) => in_postgres(&url),
        Err(_) => {
            let kept = std::env::var_os("JOURNAL").map(PathBuf::from);
            in_files(&kept.unwrap_or_else(|| scratch.path().join("journal")))
        }
    };
    keeper.prepare().expect("the journal can be made");
    let there = runtime.block_on(reader.reach());
    if there.expect("the journal answers").oldest.is_none() {
        written(&mut *keeper, messages);
        let reach = runtime.block_on(reader.reach());
        let bytes = reach.expect("the journal answers").bytes;
        println!("  {:.0} bytes a message", bytes as f64 / messages as f64);
    }
    runtime.block_on(asked(&*reader, messages));
}

fn in_files(directory: &Path) -> Journal {
    let store = sqlite::Store::open(directory, "node-1", sqlite::Limits::default())
        .expect("the journal can be opened");
    let reader = store.reader(Arc::new(|| 0));
    (Box::new(store), Arc::new(reader))
}

fn in_postgres(url: &str) -> Journal {
    let address = url.parse().expect("POSTGRES is a URL");
    // Nothing is too old: the messages are of a day that may be long ago.
    let limits = postgres::Limits::new(Duration::from_secs(7 * 86_400), u64::MAX);
    let store = postgres::Store::new(&address, "node-1", limits).expect("there is a thread");
    let reader = postgres::PostgresReader::new(&address, Arc::new(|| 0));
    (Box::new(store), Arc::new(reader))
}

/// Fills the journal and prints what that took.
fn written(keeper: &mut dyn Keeper, messages: u64) {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let mut next = 0;
    fill::fill(keeper, messages, |so_far| {
        if so_far >= next {
            eprintln!("{so_far} of {messages} messages");
            next += (messages / 10).max(1);
        }
    });
    let micros = |seconds: f64| seconds * 1e6 / messages as f64;
    println!("write {messages} messages, one thread, making them included");
    println!(
        "  {:.1} us a message, {:.1} us CPU of this process",
        micros(began.elapsed().as_secs_f64()),
        micros(cpu_seconds() - cpu),
    );
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

async fn asked(reader: &dyn Reader, messages: u64) {
    println!("\nask {messages} messages, {TIMES} times each");
    println!(
        "{:<52}{:>10}{:>10}{:>8}",
        "question", "median ms", "most ms", "found"
    );
    for (name, filter) in questions(messages) {
        pages(reader, name, &filter).await;
    }
    one_message(reader).await;
    counts(reader, messages).await;
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
async fn pages(reader: &dyn Reader, name: &str, filter: &Filter) {
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
async fn one_message(reader: &dyn Reader) {
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
async fn counts(reader: &dyn Reader, messages: u64) {
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
