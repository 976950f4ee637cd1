//! The tables, and how they come to be what this program writes.

use deadpool_postgres::Object;

use super::connect::Failure;

/// What makes the tables of each version out of those of the version before. A step that was
/// released is never changed: what follows is another step.
const STEPS: [&str; 1] = [FIRST];

/// Takes the lock under which nodes make and drop tables, one at a time, until the end of the
/// transaction.
pub(super) const LOCK: &str =
    "select pg_advisory_xact_lock(hashtextextended('levada ' || current_schema(), 0))";
/// The same, unless another node has it.
pub(super) const TRY_LOCK: &str =
    "select pg_try_advisory_xact_lock(hashtextextended('levada ' || current_schema(), 0))";

/// Lists go by time of acceptance, then by the message's key. Names that repeat are numbers, but not
/// types and sources, of which there may be one for every event. No index beyond these: each costs
/// every insert. What has no partition of its own is in `_rest`.
const FIRST: &str = "
create table levada_name (id integer generated always as identity primary key, text text not null unique);
create table levada_subject (sub integer not null, channel integer not null, primary key (sub, channel));
create table levada_message (
  accepted bigint not null, scope bigint not null, off bigint not null, updated bigint not null,
  next_attempt bigint, event_hash bigint not null,
  part integer not null, sub integer not null, channel integer not null, topic integer not null,
  attempts integer not null, max_attempts integer not null, round integer not null,
  logs integer not null, changes integer not null,
  status smallint not null, failure smallint, reason smallint, final boolean not null,
  event_id text not null, type text not null, source text not null, subject text, event_time text,
  primary key (scope, part, off, accepted)
) partition by range (accepted);
create index levada_message_accepted on levada_message (accepted, scope, part, off);
create index levada_message_sub on levada_message (sub, accepted, scope, part, off);
create index levada_message_status on levada_message (status, accepted, scope, part, off) where status <> 2;
create index levada_message_sub_status on levada_message (sub, status, accepted, scope, part, off) where status <> 2;
create index levada_message_reason on levada_message (reason, accepted, scope, part, off) where reason is not null;
create index levada_message_sub_reason on levada_message (sub, reason, accepted, scope, part, off) where reason is not null;
create index levada_message_event on levada_message (event_hash);
create table levada_attempt (
  accepted bigint not null, scope bigint not null, off bigint not null,
  started bigint not null, duration_us bigint not null, wait_ms bigint, planned_ms bigint,
  part integer not null, n integer not null, round integer not null, attempt integer not null, code integer,
  kind smallint not null, phase smallint not null, cause smallint not null, wait_flags smallint not null,
  reason smallint, error_kind smallint, truncated boolean not null, node text not null, method text not null, url text not null,
  request text not null, response text, body bytea, error_text text,
  primary key (scope, part, off, n, accepted)
) partition by range (accepted);
create table levada_status_change (
  accepted bigint not null, scope bigint not null, off bigint not null, at bigint not null,
  part integer not null, n integer not null, attempt integer not null, max_attempts integer not null,
  status smallint not null, reason smallint, retryable boolean not null,
  primary key (scope, part, off, n, accepted)
) partition by range (accepted);
create table levada_stat (
  at bigint not null, n bigint not null, sub integer not null, node integer not null,
  outcome smallint not null, reason smallint not null, bucket smallint not null,
  primary key (sub, at, outcome, reason, bucket, node)
) partition by range (at);
create table levada_message_rest partition of levada_message default;
create table levada_attempt_rest partition of levada_attempt default;
create table levada_status_change_rest partition of levada_status_change default;
create table levada_stat_rest partition of levada_stat default;
create table levada_sample (
  sub integer not null, reason smallint not null, node integer not null, at bigint not null, text text not null,
  primary key (sub, reason, node)
);
create table levada_gap (
  id bigint generated always as identity primary key,
  since bigint not null, until bigint not null, changes bigint not null, node integer not null
);
create table levada_segment (number integer primary key, starts bigint not null unique, ends bigint not null);
";

/// The version of the tables that this program writes.
fn version() -> i32 {
    i32::try_from(STEPS.len()).unwrap_or(i32::MAX)
}

/// Makes the tables, or brings them to this program's version, one node at a time.
pub(super) async fn migrate(client: &mut Object) -> Result<(), Failure> {
    let row = client
        .query_one(
            "select current_setting('server_version_num')::integer, current_setting('server_encoding'),
               to_regclass('levada_schema') is not null",
            &[],
        )
        .await?;
    let server: i32 = row.try_get(0)?;
    if server < 130_000 {
        return Err(Failure::Old(server / 10_000));
    }
    let encoding: String = row.try_get(1)?;
    if encoding != "UTF8" {
        return Err(Failure::Encoding(encoding));
    }
    if row.try_get(2)? && found(client).await? == version() {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    transaction.execute(LOCK, &[]).await?;
    transaction
        .batch_execute("create table if not exists levada_schema (version integer not null)")
        .await?;
    let from = found(&transaction).await?;
    if from > version() {
        return Err(Failure::Newer(from, version()));
    }
    for step in STEPS.iter().skip(usize::try_from(from).unwrap_or(0)) {
        transaction.batch_execute(step).await?;
    }
    transaction
        .execute("delete from levada_schema", &[])
        .await?;
    transaction
        .execute("insert into levada_schema values ($1)", &[&version()])
        .await?;
    transaction.commit().await?;
    if from < version() {
        tracing::info!(from, to = version(), "the journal's tables are made");
    }
    Ok(())
}

/// The version of the tables; 0: there are none.
async fn found(client: &impl deadpool_postgres::GenericClient) -> Result<i32, Failure> {
    let row = client
        .query_one("select coalesce(max(version), 0) from levada_schema", &[])
        .await?;
    Ok(row.try_get(0)?)
}
