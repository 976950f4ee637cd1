//! The journal's answers, out of what all nodes wrote.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::{Object, Pool};

use super::connect::{Address, Failure, Purpose, pool, within};
use super::{charts, codes, scan, story};
use crate::channel::ResourceName;
use crate::clock::UnixMillis;
use crate::journal::walk::Way;
use crate::journal::{
    Bucket, Cursor, Filter, Gap, JournalError, Message, Page, PageRequest, Queued, Reach,
    ReadFuture, Reader, ReasonCount, Span, Story,
};
use crate::message::MessageId;

/// How long an answer may take, once it has a connection.
const LIMIT: Duration = Duration::from_secs(5);
/// Gaps that are told.
const GAPS: i64 = 50;

/// Reads what the [`super::Store`]s of all nodes write, over few connections that are made when they
/// are needed.
#[derive(Clone)]
pub struct PostgresReader {
    pool: Pool,
    address: Address,
    queued: Queued,
}

impl fmt::Debug for PostgresReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresReader")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl PostgresReader {
    /// A reader of the journal at `address`; `queued` tells how many changes of this node wait to be
    /// written.
    #[must_use]
    pub fn new(address: &Address, queued: Queued) -> Self {
        Self {
            pool: pool(address, Purpose::Read),
            address: address.clone(),
            queued,
        }
    }

    async fn client(&self) -> Result<Object, JournalError> {
        let client = self.pool.get().await;
        client.map_err(|error| self.unavailable(&error.into()))
    }

    fn unavailable(&self, failure: &Failure) -> JournalError {
        JournalError::Unavailable(format!("the database {}: {failure}", self.address))
    }
}

/// An answer that is worked out on a connection, within its time.
macro_rules! answer {
    ($reader:ident, |$client:ident| $work:expr) => {{
        let client = $reader.client().await?;
        let answer = within(LIMIT, client, async |$client: &mut Object| $work.await).await;
        answer.map_err(|failure| $reader.unavailable(&failure))
    }};
}

impl Reader for PostgresReader {
    fn list<'a>(
        &'a self,
        filter: &'a Filter,
        request: &'a PageRequest,
    ) -> ReadFuture<'a, Page<Message>> {
        Box::pin(async move {
            let way = Way::of(request)?;
            let found = answer!(self, |client| scan::search(
                client,
                filter,
                way,
                request.size + 1
            ))?;
            Ok(found.page(request.size, way))
        })
    }

    fn count_newer<'a>(
        &'a self,
        filter: &'a Filter,
        than: &'a Cursor,
        limit: usize,
    ) -> ReadFuture<'a, usize> {
        Box::pin(async move {
            let way = Way::newer(than)?;
            let found = answer!(self, |client| scan::search(client, filter, way, limit))?;
            Ok(found.messages.len())
        })
    }

    fn story<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Story>> {
        Box::pin(async move {
            let Ok(id) = id.parse::<MessageId>() else {
                return Ok(None);
            };
            answer!(self, |client| story::story(client, id))
        })
    }

    fn message<'a>(&'a self, id: &'a str) -> ReadFuture<'a, Option<Message>> {
        Box::pin(async move {
            let Ok(id) = id.parse::<MessageId>() else {
                return Ok(None);
            };
            answer!(self, |client| scan::find(client, id))
        })
    }

    fn siblings<'a>(&'a self, event_id: &'a str, limit: usize) -> ReadFuture<'a, Vec<Message>> {
        Box::pin(async move {
            let filter = Filter {
                event_id: Some(event_id.to_owned()),
                ..Filter::default()
            };
            let found = answer!(self, |client| scan::search(
                client,
                &filter,
                Way::NEWEST,
                limit
            ))?;
            Ok(found.into_messages())
        })
    }

    fn chart<'a>(
        &'a self,
        subscription: Option<&'a ResourceName>,
        span: Span,
        step_minutes: u32,
    ) -> ReadFuture<'a, Vec<Bucket>> {
        Box::pin(async move {
            let name = subscription.map(ToString::to_string);
            let name = name.as_deref();
            answer!(self, |client| charts::chart(
                client,
                name,
                span,
                step_minutes
            ))
        })
    }

    fn reasons<'a>(
        &'a self,
        subscription: &'a ResourceName,
        span: Span,
    ) -> ReadFuture<'a, Vec<ReasonCount>> {
        Box::pin(async move {
            let name = subscription.to_string();
            answer!(self, |client| charts::reasons(client, &name, span))
        })
    }

    fn reach(&self) -> ReadFuture<'_, Reach> {
        Box::pin(async move {
            let queued = (self.queued)();
            answer!(self, |client| reach(client, queued))
        })
    }
}

/// Sizes are the database's own figures: never counted, and up to some seconds old.
const SIZES: &str = "
select (select min(accepted) from levada_message),
  coalesce(sum(case when p.root = 'levada_message'::regclass
    then greatest(c.reltuples, pg_stat_get_live_tuples(c.oid)) end), 0)::bigint,
  coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
from unnest(array['levada_message', 'levada_attempt', 'levada_status_change', 'levada_stat']::regclass[]) as p(root)
join pg_inherits i on i.inhparent = p.root join pg_class c on c.oid = i.inhrelid";

async fn reach(client: &Object, queued: u64) -> Result<Reach, Failure> {
    let sizes = client.prepare_cached(SIZES).await?;
    let sizes = client.query_one(&sizes, &[]).await?;
    let gaps = client
        .prepare_cached("select since, until, changes from levada_gap order by id desc limit $1")
        .await?;
    let gaps = client.query(&gaps, &[&GAPS]).await?;
    let gap = |row: &tokio_postgres::Row| -> Result<Gap, Failure> {
        Ok(Gap {
            from: UnixMillis(row.try_get(0)?),
            to: Some(UnixMillis(row.try_get(1)?)),
            changes: codes::unsigned(row.try_get(2)?),
        })
    };
    let size = |at: usize| -> Result<u64, Failure> {
        Ok(u64::try_from(sizes.try_get::<_, i64>(at)?).unwrap_or(0))
    };
    Ok(Reach {
        oldest: sizes.try_get::<_, Option<i64>>(0)?.map(UnixMillis),
        messages: size(1)?,
        bytes: size(2)?,
        queued,
        gaps: gaps.iter().map(gap).collect::<Result<_, _>>()?,
    })
}
