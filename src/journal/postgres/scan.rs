//! A page of messages: which index is walked, how far, and what fits. The database walks a stretch of
//! an index at a time and sends only what fits, with where the stretch ended.

use std::fmt::Write as _;

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connect::Failure;
use super::{codes, count, reason, small, text};
use crate::clock::UnixMillis;
use crate::journal::walk::{Budget, Found, Key, Way, id_of};
use crate::journal::{EventFacts, Filter, Message, Status};
use crate::message::MessageId;

/// Entries that the database walks before it answers, where not all of them fit.
const STRETCH: usize = 4_096;
/// Parts of indexes that are walked for one page, each by a question of its own.
const STREAMS: usize = 32;
/// Statements that a connection keeps prepared, each with a plan over all segments.
const PREPARED: usize = 64;
/// Messages with one event's id that are looked through.
const SAME_EVENT: i64 = 20_000;

/// A filter in numbers.
struct Numbers {
    status: Vec<i16>,
    subs: Vec<i32>,
    reasons: Vec<i16>,
}

/// A part of an index with equal first columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    All,
    Sub(i32),
    Status(i16),
    SubStatus(i32, i16),
    Reason(i16),
    SubReason(i32, i16),
    /// By the hash of its id: few, in no order.
    Event(i64),
}

impl Stream {
    fn is_ordered(self) -> bool {
        !matches!(self, Self::Event(_))
    }
}

/// A statement while it is put together, with its values.
#[derive(Default)]
struct Query {
    text: String,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Query {
    /// Adds text in which each `?` stands for the next of `values`.
    fn add<const N: usize>(&mut self, text: &str, values: [Box<dyn ToSql + Sync + Send>; N]) {
        let mut parts = text.split('?');
        self.text.push_str(parts.next().unwrap_or_default());
        for (part, value) in parts.zip(values) {
            self.values.push(value);
            // A string takes everything.
            let _ = write!(self.text, "${}{part}", self.values.len());
        }
    }

    async fn run(&self, client: &Object) -> Result<Vec<Row>, Failure> {
        if client.statement_cache.size() > PREPARED {
            client.statement_cache.clear();
        }
        let statement = client.prepare_cached(&self.text).await?;
        let values: Vec<&(dyn ToSql + Sync)> =
            self.values.iter().map(|value| &**value as _).collect();
        Ok(client.query(&statement, &values).await?)
    }

    /// The first column of what is answered.
    async fn column(&self, client: &Object) -> Result<Vec<i32>, Failure> {
        let rows = self.run(client).await?;
        let column = rows.iter().map(|row| row.try_get(0));
        Ok(column.collect::<Result<_, _>>()?)
    }
}

macro_rules! values {
    ($($value:expr),* $(,)?) => { [$(Box::new($value) as Box<dyn ToSql + Sync + Send>),*] };
}

/// Messages that fit, in the order of the walk, at most `limit`.
pub(super) async fn search(
    client: &Object,
    filter: &Filter,
    way: Way,
    limit: usize,
) -> Result<Found, Failure> {
    let mut all = Found::default();
    let Some(numbers) = numbers(client, filter).await? else {
        return Ok(all);
    };
    let mut budget = Budget::new();
    let streams = streams(filter, &numbers);
    for stream in &streams {
        let walk = Walk {
            client,
            filter,
            numbers: &numbers,
            stream: *stream,
            stretch: STRETCH / streams.len(),
            down: way.down,
        };
        all.add(walk.go(way, limit, &mut budget).await?, way);
    }
    all.sort(way, limit);
    all.settle(way, limit);
    Ok(all)
}

/// `None`: there is no such name, so nothing fits.
async fn numbers(client: &Object, filter: &Filter) -> Result<Option<Numbers>, Failure> {
    let mut status: Vec<i16> = filter
        .status
        .iter()
        .map(|status| small(codes::of_status(*status)))
        .collect();
    if filter.retrying && status.is_empty() {
        status.push(small(codes::of_status(Status::Queued)));
    }
    let texts = |names: &[crate::channel::ResourceName]| -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    };
    let mut subs = ids(client, &texts(&filter.subscription)).await?;
    if !filter.channel.is_empty() {
        let channels = ids(client, &texts(&filter.channel)).await?;
        let mut query = Query::default();
        query.add(
            "select sub from levada_subject where channel = any(?)",
            values![channels],
        );
        let of_channels = query.column(client).await?;
        if filter.subscription.is_empty() {
            subs = of_channels;
        } else {
            subs.retain(|sub| of_channels.contains(sub));
        }
    }
    let reasons: Vec<i16> = filter
        .reason
        .iter()
        .filter_map(|name| name.parse().ok().map(reason))
        .collect();
    let asks_subs = !filter.subscription.is_empty() || !filter.channel.is_empty();
    let lacks = (asks_subs && subs.is_empty()) || (!filter.reason.is_empty() && reasons.is_empty());
    subs.sort_unstable();
    subs.dedup();
    Ok((!lacks).then_some(Numbers {
        status,
        subs,
        reasons,
    }))
}

/// The numbers of those names that there are.
async fn ids(client: &Object, names: &[String]) -> Result<Vec<i32>, Failure> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = Query::default();
    query.add(
        "select id from levada_name where text = any(?)",
        values![names.to_vec()],
    );
    query.column(client).await
}

/// The parts of indexes that hold all that fits. Of many a single wider one takes the place, of
/// which less fits.
fn streams(filter: &Filter, numbers: &Numbers) -> Vec<Stream> {
    if let Some(id) = &filter.event_id {
        return vec![Stream::Event(codes::event_hash(&text(id)))];
    }
    let is_few = |streams: usize| (1..=STREAMS).contains(&streams);
    let subs = || numbers.subs.iter().copied();
    if !numbers.reasons.is_empty() {
        let reasons = || numbers.reasons.iter().copied();
        if !is_few(numbers.subs.len() * numbers.reasons.len()) {
            return reasons().map(Stream::Reason).collect();
        }
        let pairs = |sub| reasons().map(move |reason| Stream::SubReason(sub, reason));
        return subs().flat_map(pairs).collect();
    }
    let delivered = small(codes::of_status(Status::Delivered));
    let statuses = || numbers.status.iter().copied();
    if !numbers.status.is_empty() && !numbers.status.contains(&delivered) {
        if !is_few(numbers.subs.len() * numbers.status.len()) {
            return statuses().map(Stream::Status).collect();
        }
        let pairs = |sub| statuses().map(move |status| Stream::SubStatus(sub, status));
        return subs().flat_map(pairs).collect();
    }
    if is_few(numbers.subs.len()) {
        subs().map(Stream::Sub).collect()
    } else {
        vec![Stream::All]
    }
}

/// The walk along one stream.
struct Walk<'a> {
    client: &'a Object,
    filter: &'a Filter,
    numbers: &'a Numbers,
    stream: Stream,
    /// Entries that are walked at one go.
    stretch: usize,
    down: bool,
}

/// What came of a stretch.
struct Stretch {
    found: Vec<(Key, Message)>,
    walked: usize,
    last: Option<Key>,
}

impl Walk<'_> {
    async fn go(&self, way: Way, limit: usize, budget: &mut Budget) -> Result<Found, Failure> {
        let mut found = Found::default();
        let mut from = way.from;
        loop {
            let left = limit.saturating_sub(found.messages.len());
            // Who comes when the time is over looks at a few all the same, so that it gets on.
            let most = if self.all_fit() || budget.is_spent() {
                left
            } else {
                self.stretch.min(budget.entries()).max(left)
            };
            let stretch = self.next(from, most, left).await?;
            budget.take_many(stretch.walked);
            found.messages.extend(stretch.found);
            let over = stretch.walked < most || found.messages.len() >= limit;
            if over {
                return Ok(found);
            }
            from = stretch.last;
            if budget.is_spent() {
                found.stopped = stretch.last;
                return Ok(found);
            }
        }
    }

    /// Whether the stream holds nothing but what fits.
    fn all_fit(&self) -> bool {
        let (filter, numbers) = (self.filter, self.numbers);
        let (by_sub, by_status, by_reason) = match self.stream {
            Stream::All => (false, false, false),
            Stream::Sub(_) => (true, false, false),
            Stream::Status(_) => (false, true, false),
            Stream::SubStatus(..) => (true, true, false),
            Stream::Reason(_) => (false, false, true),
            Stream::SubReason(..) => (true, false, true),
            // Nearly: hashes of different ids are hardly ever the same.
            Stream::Event(_) => (false, false, false),
        };
        filter.event_type.is_none()
            && filter.event_source.is_none()
            && filter.is_final.is_none()
            && !filter.retrying
            && (by_sub || numbers.subs.is_empty())
            && (by_status || numbers.status.is_empty())
            && (by_reason || numbers.reasons.is_empty())
    }

    async fn next(&self, from: Option<Key>, most: usize, limit: usize) -> Result<Stretch, Failure> {
        let rows = self.query(from, most, limit).run(self.client).await?;
        let mut stretch = Stretch {
            found: Vec::new(),
            walked: 0,
            last: None,
        };
        for row in &rows {
            stretch.walked = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
            if row.try_get::<_, Option<i64>>(1)?.is_some() {
                stretch.last = Some(key(row, 1)?);
            }
            if row.try_get::<_, Option<i64>>(5)?.is_some() {
                stretch.found.push((key(row, 5)?, message(row, 5)?));
            }
        }
        Ok(stretch)
    }

    /// Columns: entries walked; the key of the last one; from 5 on a message that fits. At least one
    /// row, whose message is null when none fits.
    fn query(&self, from: Option<Key>, most: usize, limit: usize) -> Query {
        let (order, back) = if self.down {
            (order("desc"), order("asc"))
        } else {
            (order("asc"), order("desc"))
        };
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let mut query = Query::default();
        query.add("with w as materialized (select * from ", []);
        if self.stream.is_ordered() {
            query.add("levada_message where true", []);
        } else {
            // An order inside would make the planner walk all messages.
            query.add(
                "(with e as materialized (select * from levada_message where true",
                [],
            );
        }
        self.walked(&mut query, from);
        if !self.stream.is_ordered() {
            query.add(" limit ?) select * from e) as e", values![SAME_EVENT]);
        }
        query.add(&format!(" {order} limit ?), "), values![number(most)]);
        query.add("f as (select * from w where true", []);
        self.fitting(&mut query);
        query.add(&format!(" {order} limit ?), "), values![number(limit)]);
        query.add(
            &format!(
                "s as (select * from (select count(*) as walked from w) as c
                 left join (select accepted, scope, part, off from w {back} limit 1) as l on true)
                 select s.walked, s.accepted, s.scope, s.part, s.off, {COLUMNS}
                 from s left join (f {NAMES}) on true {}",
                order
                    .replace("accepted", "f.accepted")
                    .replace("scope", "f.scope")
                    .replace("part", "f.part")
                    .replace("off", "f.off"),
            ),
            [],
        );
        query
    }

    /// What the walk goes along, and its bounds.
    fn walked(&self, query: &mut Query, from: Option<Key>) {
        match self.stream {
            Stream::All => {}
            Stream::Sub(sub) => query.add(" and sub = ?", values![sub]),
            Stream::Status(status) => {
                query.add(" and status = ? and status <> 2", values![status]);
            }
            Stream::SubStatus(sub, status) => query.add(
                " and sub = ? and status = ? and status <> 2",
                values![sub, status],
            ),
            Stream::Reason(reason) => {
                query.add(" and reason = ? and reason is not null", values![reason]);
            }
            Stream::SubReason(sub, reason) => query.add(
                " and sub = ? and reason = ? and reason is not null",
                values![sub, reason],
            ),
            Stream::Event(hash) => query.add(" and event_hash = ?", values![hash]),
        }
        if let Some((accepted, scope, part, off)) = from {
            let beyond = if self.down { "<" } else { ">" };
            let part = i32::try_from(part).unwrap_or_default();
            // The time alone says which partitions are left out.
            query.add(
                &format!(
                    " and accepted {beyond}= ? and (accepted, scope, part, off) {beyond} (?, ?, ?, ?)"
                ),
                values![accepted, accepted, scope, part, off],
            );
        }
        if let Some(from) = self.filter.from {
            query.add(" and accepted >= ?", values![from.0]);
        }
        if let Some(to) = self.filter.to {
            query.add(" and accepted < ?", values![to.0]);
        }
    }

    /// What a message has to be, to fit.
    fn fitting(&self, query: &mut Query) {
        let (filter, numbers) = (self.filter, self.numbers);
        for (column, wanted) in [
            ("event_id", &filter.event_id),
            ("type", &filter.event_type),
            ("source", &filter.event_source),
        ] {
            if let Some(wanted) = wanted {
                let wanted = text(wanted).into_owned();
                query.add(&format!(" and {column} = ?"), values![wanted]);
            }
        }
        if !numbers.status.is_empty() {
            query.add(" and status = any(?)", values![numbers.status.clone()]);
        }
        if !numbers.subs.is_empty() {
            query.add(" and sub = any(?)", values![numbers.subs.clone()]);
        }
        if !numbers.reasons.is_empty() {
            query.add(" and reason = any(?)", values![numbers.reasons.clone()]);
        }
        if let Some(wanted) = filter.is_final {
            query.add(" and final = ?", values![wanted]);
        }
        if filter.retrying {
            query.add(" and status = 0 and attempts > 0", []);
        }
    }
}

fn order(way: &str) -> String {
    format!("order by accepted {way}, scope {way}, part {way}, off {way}")
}

/// The columns of a message that is called `f`, its key first.
const COLUMNS: &str = "f.accepted, f.scope, f.part, f.off, f.status, f.final, f.reason, ns.text, f.type, f.source, \
    f.attempts, f.event_id, nc.text, nt.text, f.updated, f.failure, f.max_attempts, f.round, f.next_attempt, \
    f.subject, f.event_time";
/// Where its names are.
const NAMES: &str = "join levada_name ns on ns.id = f.sub join levada_name nc on nc.id = f.channel \
    join levada_name nt on nt.id = f.topic";

/// The key whose parts begin at column `at`.
fn key(row: &Row, at: usize) -> Result<Key, Failure> {
    let part: i32 = row.try_get(at + 2)?;
    Ok((
        row.try_get(at)?,
        row.try_get(at + 1)?,
        part.into(),
        row.try_get(at + 3)?,
    ))
}

/// The message whose [`COLUMNS`] begin at column `at`.
fn message(row: &Row, at: usize) -> Result<Message, Failure> {
    let key = key(row, at)?;
    let number = |column: usize| row.try_get::<_, i32>(at + column).map(count);
    let code = |column: usize| row.try_get::<_, Option<i16>>(at + column);
    let resource = |column: usize| -> Result<_, Failure> {
        let name: String = row.try_get(at + column)?;
        name.parse().map_err(|_| Failure::Name(name))
    };
    Ok(Message {
        id: id_of(key),
        channel: resource(12)?,
        subscription: resource(7)?,
        status: codes::status(code(4)?.unwrap_or_default().into()),
        is_final: row.try_get(at + 5)?,
        failure: code(15)?.and_then(|code| codes::failure(code.into())),
        last_reason: codes::reason_name(code(6)?.map(i64::from)),
        attempts: number(10)?,
        max_attempts: number(16)?,
        next_attempt: row.try_get::<_, Option<i64>>(at + 18)?.map(UnixMillis),
        round: number(17)?,
        accepted: UnixMillis(key.0),
        updated: UnixMillis(row.try_get(at + 14)?),
        event: EventFacts {
            id: row.try_get(at + 11)?,
            source: row.try_get(at + 9)?,
            r#type: row.try_get(at + 8)?,
            subject: row.try_get(at + 19)?,
            time: row.try_get(at + 20)?,
        },
        topic: row.try_get(at + 13)?,
        partition: i32::try_from(key.2).unwrap_or_default(),
        offset: key.3,
    })
}

/// The message with this id.
pub(super) async fn find(client: &Object, id: MessageId) -> Result<Option<Message>, Failure> {
    let (scope, partition, offset) = id.parts();
    let mut query = Query::default();
    query.add(
        &format!(
            "select {COLUMNS} from levada_message f {NAMES}
             where f.scope = ? and f.part = ? and f.off = ? limit 1"
        ),
        values![codes::signed(scope), partition, offset],
    );
    let rows = query.run(client).await?;
    rows.first().map(|row| message(row, 0)).transpose()
}
