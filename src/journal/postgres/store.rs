//! The end that writes: batches, each in one transaction, from the journal's own thread.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use deadpool_postgres::{Object, Pool, Transaction};
use tokio::runtime::Runtime;

use super::batch::{Batch, Counts, Id, id_of};
use super::connect::{Address, Failure, Purpose, pool, within};
use super::copy::{Names, number};
use super::segments::{self, Limits, Segment};
use super::stats::Stats;
use super::{codes, copy, int, reason, schema, small};
use crate::clock::UnixMillis;
use crate::journal::mask::Secrets;
use crate::journal::{Change, KeepError, Keeper};

/// A subscription's number with its channel's.
type Subjects = HashSet<(i32, i32)>;

/// How long anything may take, longer than a statement may.
const LIMIT: Duration = Duration::from_secs(20);

/// Writes to the database, over one connection that is made when it is needed.
pub struct Store {
    /// Of this thread alone: a store that hangs holds nothing else up. There until the end.
    runtime: Option<Runtime>,
    writing: Writing,
}

struct Writing {
    pool: Pool,
    address: Address,
    node: String,
    limits: Limits,
    /// Whether the tables are known to be there; `names` and `segments` are as they are then.
    ready: bool,
    names: Names,
    segments: Vec<Segment>,
    /// Subscriptions with their channels, as far as they are stored.
    subjects: Subjects,
    secrets: Secrets,
    /// The transaction whose commit was asked for, but not answered.
    doubt: Option<String>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("address", &self.writing.address)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// A store that connects when it is first used. `node` is the name of this node.
    ///
    /// # Errors
    /// When the system gives nothing to wait for input and output with.
    pub fn new(address: &Address, node: &str, limits: Limits) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
            writing: Writing {
                pool: pool(address, Purpose::Write),
                address: address.clone(),
                node: node.to_owned(),
                limits,
                ready: false,
                names: Names::new(),
                segments: Vec::new(),
                subjects: Subjects::new(),
                secrets: Secrets::default(),
                doubt: None,
            },
        })
    }

    /// Has the commit of this transaction look as if it was never answered.
    #[cfg(test)]
    pub(super) fn doubt(&mut self, transaction: &str) {
        self.writing.doubt = Some(transaction.to_owned());
    }

    fn work<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Writing) -> Result<T, Failure>,
    ) -> Result<T, KeepError> {
        let Some(runtime) = &self.runtime else {
            return Err(KeepError::away("the journal is closed"));
        };
        runtime
            .block_on(work(&mut self.writing))
            .map_err(|failure| {
                // The database may be another one when it is back: nothing that is known holds.
                self.writing.ready = false;
                self.writing.told(&failure)
            })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Keeper for Store {
    fn prepare(&mut self) -> Result<(), KeepError> {
        self.work(async |writing| writing.client().await.map(drop))
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), KeepError> {
        self.work(async |writing| writing.write(changes).await)
    }

    fn write_gap(
        &mut self,
        since: UnixMillis,
        until: UnixMillis,
        changes: u64,
    ) -> Result<(), KeepError> {
        self.work(async |writing| {
            let client = writing.client().await?;
            let node = number(&writing.names, &writing.node);
            within(LIMIT, client, async |client| {
                client
                    .execute(
                        "insert into levada_gap (since, until, changes, node) values ($1, $2, $3, $4)",
                        &[&since.0, &until.0, &codes::signed(changes), &node],
                    )
                    .await?;
                Ok(())
            })
            .await
        })
    }

    fn retain(&mut self, now: UnixMillis) {
        let retained = self.work(async |writing| {
            let client = writing.client().await?;
            let limits = writing.limits;
            writing.segments = within(LIMIT, client, async |client| {
                segments::retain(client, now, &limits).await?;
                segments::all(client).await
            })
            .await?;
            Ok(())
        });
        if let Err(error) = retained {
            tracing::warn!(%error, "the journal's old messages were not let go, trying again");
        }
    }
}

impl Writing {
    fn told(&self, failure: &Failure) -> KeepError {
        let told = format!(
            "the journal's database {} is not to be had: {failure}",
            self.address
        );
        if failure.is_the_batch() {
            KeepError::refused(told)
        } else {
            KeepError::away(told)
        }
    }

    /// The connection, with tables that are there.
    async fn client(&mut self) -> Result<Object, Failure> {
        if !self.ready {
            let (client, node) = (self.pool.get().await?, self.node.clone());
            let (names, segments) = within(LIMIT, client, async |client| {
                schema::migrate(client).await?;
                let names = name(client, &[&node]).await?;
                Ok((names, segments::all(client).await?))
            })
            .await?;
            self.names = names;
            self.segments = segments;
            self.subjects.clear();
            self.ready = true;
        }
        Ok(self.pool.get().await?)
    }

    async fn write(&mut self, changes: &[Change]) -> Result<(), Failure> {
        let client = self.client().await?;
        let this = self;
        within(LIMIT, client, async |client| {
            if is_there(client, &mut this.doubt).await? {
                return Ok(());
            }
            this.learn(client, changes).await?;
            let written = this.transact(client, changes).await;
            if written.as_ref().is_err_and(Failure::is_a_race) {
                // The other node's row is there now.
                return this.transact(client, changes).await;
            }
            written
        })
        .await
    }

    /// Sees to the names and segments that changes need.
    async fn learn(&mut self, client: &mut Object, changes: &[Change]) -> Result<(), Failure> {
        let wanted = wanted(changes);
        let known = |name: &&str| self.names.contains_key(*name);
        let lacking = wanted
            .iter()
            .map(String::as_str)
            .filter(|name| !known(name));
        let lacking: Vec<_> = lacking.collect();
        if !lacking.is_empty() {
            self.names.extend(name(client, &lacking).await?);
        }
        let now = changes.iter().map(|change| change.at).max();
        segments::cover(
            client,
            &mut self.segments,
            changes.iter().flat_map(times),
            now.unwrap_or_default(),
            &self.limits,
        )
        .await
    }

    /// Writes changes in one transaction.
    async fn transact(&mut self, client: &mut Object, changes: &[Change]) -> Result<(), Failure> {
        let names = &self.names;
        let transaction = client.transaction().await?;
        let known = known(&transaction, changes).await?;
        let batch = Batch::new(changes, &known);
        copy::messages(&transaction, &batch, names).await?;
        copy::attempts(&transaction, &batch, &self.node, &mut self.secrets).await?;
        copy::statuses(&transaction, &batch).await?;
        update(&transaction, &batch).await?;
        let new = subjects(&transaction, changes, names, &self.subjects).await?;
        let stats = Stats::new(changes, names);
        stats.write(&transaction, number(names, &self.node)).await?;
        let id = transaction
            .prepare_cached("select pg_current_xact_id()::text")
            .await?;
        self.doubt = Some(transaction.query_one(&id, &[]).await?.try_get(0)?);
        transaction.commit().await?;
        self.doubt = None;
        self.subjects.extend(new);
        Ok(())
    }
}

fn times(change: &Change) -> impl Iterator<Item = i64> {
    let started = change.log.as_ref().map(|log| log.started.0);
    std::iter::once(change.key.accepted.0).chain(started)
}

/// Whether the transaction that is in doubt was made. It is that of the batch that comes again.
async fn is_there(client: &Object, doubt: &mut Option<String>) -> Result<bool, Failure> {
    let Some(transaction) = doubt.as_ref() else {
        return Ok(false);
    };
    let row = client
        .query_one("select pg_xact_status($1::text::xid8)", &[transaction])
        .await?;
    let status: Option<&str> = row.try_get(0)?;
    if status == Some("in progress") {
        return Err(Failure::Undecided);
    }
    let made = status == Some("committed");
    *doubt = None;
    Ok(made)
}

/// The names that changes need.
fn wanted(changes: &[Change]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for change in changes {
        let subscription = &change.key.subscription;
        names.insert(subscription.name.to_string());
        names.insert(subscription.channel.to_string());
        names.insert(change.key.at.topic.as_str().to_owned());
    }
    names
}

/// The numbers of names, made where they lack one, and of no use to a transaction that goes wrong:
/// a name stays.
async fn name(client: &Object, names: &[&str]) -> Result<Names, Failure> {
    client
        .execute(
            "insert into levada_name (text) select t from unnest($1::text[]) as u(t) order by t on conflict do nothing",
            &[&names],
        )
        .await?;
    let rows = client
        .query(
            "select text, id from levada_name where text = any($1)",
            &[&names],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get::<_, String>(0)?.into(), row.try_get(1)?)))
        .collect()
}

/// The messages that the tables know, locked until the end of the transaction.
async fn known(
    transaction: &Transaction<'_>,
    changes: &[Change],
) -> Result<HashMap<Id, Counts>, Failure> {
    let mut keys: Vec<(Id, i64)> = changes
        .iter()
        .map(|change| (id_of(&change.key), change.key.accepted.0))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let accepted: Vec<i64> = keys.iter().map(|(_, accepted)| *accepted).collect();
    let scopes: Vec<i64> = keys.iter().map(|(id, _)| id.0).collect();
    let parts: Vec<i32> = keys.iter().map(|(id, _)| id.1).collect();
    let offsets: Vec<i64> = keys.iter().map(|(id, _)| id.2).collect();
    let find = transaction
        .prepare_cached(
            "select m.scope, m.part, m.off, m.logs, m.changes
             from unnest($1::bigint[], $2::integer[], $3::bigint[], $4::bigint[]) as k(scope, part, off, accepted)
             join levada_message m using (scope, part, off, accepted) for update of m",
        )
        .await?;
    let rows = transaction
        .query(&find, &[&scopes, &parts, &offsets, &accepted])
        .await?;
    rows.iter()
        .map(|row| {
            let id = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let counts = Counts {
                logs: row.try_get(3)?,
                changes: row.try_get(4)?,
            };
            Ok((id, counts))
        })
        .collect()
}

const UPDATE: &str =
    "update levada_message m set updated = u.updated, logs = u.logs, changes = u.changes,
               status = coalesce(u.status, m.status), final = coalesce(u.final, m.final),
               round = coalesce(u.round, m.round), attempts = coalesce(u.attempts, m.attempts),
               max_attempts = coalesce(u.max_attempts, m.max_attempts),
               failure = case when u.status is null then m.failure else u.failure end,
               reason = case when u.status is null then m.reason else u.reason end,
               next_attempt = case when u.status is null then m.next_attempt else u.next_attempt end
             from unnest($1::bigint[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[], $6::integer[], $7::integer[],
               $8::smallint[], $9::boolean[], $10::integer[], $11::integer[], $12::integer[], $13::smallint[],
               $14::smallint[], $15::bigint[])
               as u(scope, part, off, accepted, updated, logs, changes, status, final, round, attempts, max_attempts,
                 failure, reason, next_attempt)
             where m.scope = u.scope and m.part = u.part and m.off = u.off and m.accepted = u.accepted";

/// Has the messages that the tables know stand as the batch leaves them.
async fn update(transaction: &Transaction<'_>, batch: &Batch<'_>) -> Result<(), Failure> {
    let known: Vec<_> = batch.messages.iter().filter(|(_, e)| e.known).collect();
    if known.is_empty() {
        return Ok(());
    }
    macro_rules! column {
        (|$id:ident, $entry:ident| $value:expr) => {
            known.iter().map(|($id, $entry)| $value).collect::<Vec<_>>()
        };
    }
    let update = transaction.prepare_cached(UPDATE).await?;
    transaction
        .execute(
            &update,
            &[
                &column!(|id, _e| id.0),
                &column!(|id, _e| id.1),
                &column!(|id, _e| id.2),
                &column!(|_i, e| e.first.key.accepted.0),
                &column!(|_i, e| e.updated),
                &column!(|_i, e| e.counts.logs),
                &column!(|_i, e| e.counts.changes),
                &column!(|_i, e| e.state.map(|s| small(codes::of_status(s.status)))),
                &column!(|_i, e| e.state.map(|s| s.is_final)),
                &column!(|_i, e| e.state.map(|s| int(s.round))),
                &column!(|_i, e| e.attempts.map(|(made, _)| int(made))),
                &column!(|_i, e| e.attempts.map(|(_, max)| int(max))),
                &column!(|_i, e| e
                    .state
                    .and_then(|s| s.failure)
                    .map(|f| small(codes::of_failure(f)))),
                &column!(|_i, e| e.state.and_then(|s| s.last_reason).map(reason)),
                &column!(|_i, e| e.state.and_then(|s| s.next_attempt).map(|time| time.0)),
            ],
        )
        .await?;
    Ok(())
}

/// Notes which subscriptions a channel has; returns those that were not `noted` before.
async fn subjects(
    transaction: &Transaction<'_>,
    changes: &[Change],
    names: &Names,
    noted: &Subjects,
) -> Result<Subjects, Failure> {
    let pair = |change: &Change| {
        let subscription = &change.key.subscription;
        let sub = number(names, &subscription.name.to_string());
        (sub, number(names, &subscription.channel.to_string()))
    };
    let mut new: Subjects = changes.iter().map(pair).collect();
    new.retain(|pair| !noted.contains(pair));
    if !new.is_empty() {
        let (subs, channels): (Vec<i32>, Vec<i32>) = new.iter().copied().unzip();
        transaction
            .execute(
                "insert into levada_subject select * from unnest($1::integer[], $2::integer[]) as t(s, c)
                 order by s, c on conflict do nothing",
                &[&subs, &channels],
            )
            .await?;
    }
    Ok(new)
}
