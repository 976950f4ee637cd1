//! Everything about one message.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connect::Failure;
use super::{codes, count, scan};
use crate::clock::UnixMillis;
use crate::journal::{EventFacts, StoredLog, StoredStatus, Story, Wait, mask};
use crate::message::MessageId;

/// Of many rows the first and the last are told.
const FIRST: i32 = 50;
const LAST: i32 = 200;

pub(super) async fn story(client: &Object, id: MessageId) -> Result<Option<Story>, Failure> {
    let Some(message) = scan::find(client, id).await? else {
        return Ok(None);
    };
    let statuses = "status, at, attempt, max_attempts, retryable, reason";
    let statuses = rows(
        client,
        id,
        message.accepted,
        "levada_status_change",
        statuses,
    )
    .await?;
    let logs = "kind, phase, cause, round, attempt, started, duration_us, reason, node, method, url, request,
       code, response, body, truncated, error_kind, error_text, wait_ms, planned_ms, wait_flags";
    let logs = rows(client, id, message.accepted, "levada_attempt", logs).await?;
    Ok(Some(Story {
        message,
        statuses: statuses.iter().map(status).collect::<Result<_, _>>()?,
        logs: logs.iter().map(log).collect::<Result<_, _>>()?,
    }))
}

/// The first and the last rows of a message, each with its number in front.
async fn rows(
    client: &Object,
    id: MessageId,
    accepted: UnixMillis,
    table: &str,
    columns: &str,
) -> Result<Vec<Row>, Failure> {
    const KEY: &str = "scope = $1 and part = $2 and off = $3 and accepted = $4";
    let text = format!(
        "select n, {columns} from {table} where {KEY}
         and (n <= $5 or n > (select max(n) from {table} where {KEY}) - $6) order by n"
    );
    let (scope, partition, offset) = id.parts();
    let values: [&(dyn ToSql + Sync); 6] = [
        &codes::signed(scope),
        &partition,
        &offset,
        &accepted.0,
        &FIRST,
        &LAST,
    ];
    let statement = client.prepare_cached(&text).await?;
    Ok(client.query(&statement, &values).await?)
}

fn status(row: &Row) -> Result<StoredStatus, Failure> {
    Ok(StoredStatus {
        number: count(row.try_get(0)?),
        status: codes::status(row.try_get::<_, i16>(1)?.into()),
        at: UnixMillis(row.try_get(2)?),
        attempt: count(row.try_get(3)?),
        max_attempts: count(row.try_get(4)?),
        retryable: row.try_get(5)?,
        reason: reason(row, 6)?,
    })
}

fn reason(row: &Row, at: usize) -> Result<Option<String>, Failure> {
    let code: Option<i16> = row.try_get(at)?;
    Ok(codes::reason_name(code.map(i64::from)))
}

fn log(row: &Row) -> Result<StoredLog, Failure> {
    let headers = |at: usize| -> Result<Vec<(String, String)>, Failure> {
        let text: Option<String> = row.try_get(at)?;
        // Headers are stored in full here.
        let none = EventFacts::default();
        Ok(text
            .map(|text| mask::from_json(&text, &none))
            .unwrap_or_default())
    };
    let reason = |at| reason(row, at);
    let error = reason(17)?;
    let delay: Option<i64> = row.try_get(19)?;
    let planned: Option<i64> = row.try_get(20)?;
    let flags: i16 = row.try_get(21)?;
    let millis = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    Ok(StoredLog {
        number: count(row.try_get(0)?),
        kind: codes::kind(row.try_get::<_, i16>(1)?.into()),
        phase: codes::phase(row.try_get::<_, i16>(2)?.into()).to_owned(),
        trigger: codes::trigger(row.try_get::<_, i16>(3)?.into()),
        round: count(row.try_get(4)?),
        attempt: count(row.try_get(5)?),
        started: UnixMillis(row.try_get(6)?),
        duration_us: u64::try_from(row.try_get::<_, i64>(7)?).unwrap_or(0),
        reason: reason(8)?,
        node: row.try_get(9)?,
        method: row.try_get(10)?,
        url: row.try_get(11)?,
        request_headers: headers(12)?,
        code: row
            .try_get::<_, Option<i32>>(13)?
            .and_then(|code| u16::try_from(code).ok()),
        response_headers: headers(14)?,
        body: row.try_get::<_, Option<Vec<u8>>>(15)?.unwrap_or_default(),
        truncated: row.try_get(16)?,
        error: match error {
            Some(kind) => Some((
                kind,
                row.try_get::<_, Option<String>>(18)?.unwrap_or_default(),
            )),
            None => None,
        },
        wait: delay.map(|delay| Wait {
            delay: millis(delay),
            planned: millis(planned.unwrap_or(delay)),
            retry_after: flags & 1 != 0,
            parked: flags & 2 != 0,
        }),
    })
}
