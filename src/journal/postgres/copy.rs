//! New rows on their way into the tables, by COPY in binary.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use deadpool_postgres::Transaction;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};

use super::batch::{Batch, Entry, Id, Row, id_of};
use super::connect::Failure;
use super::{codes, int, reason, small, text};
use crate::journal::mask::Secrets;
use crate::journal::{DeliveryLog, StatusEvent};

/// Names and their numbers.
pub(super) type Names = HashMap<Box<str>, i32>;

/// The number of a name that is known: names are made before the batch.
pub(super) fn number(names: &Names, name: &str) -> i32 {
    names.get(name).copied().unwrap_or_default()
}

/// Opens a COPY into `table`; its columns and their types are given in pairs.
async fn copy(
    transaction: &Transaction<'_>,
    table: &str,
    columns: &[(&str, Type)],
) -> Result<BinaryCopyInWriter, Failure> {
    let (names, types): (Vec<_>, Vec<_>) = columns.iter().cloned().unzip();
    let statement = format!("copy {table} ({}) from stdin binary", names.join(", "));
    let statement = transaction.prepare_cached(&statement).await?;
    let sink = transaction.copy_in(&statement).await?;
    Ok(BinaryCopyInWriter::new(sink, &types))
}

/// Writes the messages that the tables do not know.
pub(super) async fn messages(
    transaction: &Transaction<'_>,
    batch: &Batch<'_>,
    names: &Names,
) -> Result<(), Failure> {
    const COLUMNS: [(&str, Type); 24] = [
        ("accepted", Type::INT8),
        ("scope", Type::INT8),
        ("off", Type::INT8),
        ("updated", Type::INT8),
        ("next_attempt", Type::INT8),
        ("event_hash", Type::INT8),
        ("part", Type::INT4),
        ("sub", Type::INT4),
        ("channel", Type::INT4),
        ("topic", Type::INT4),
        ("reason", Type::INT2),
        ("attempts", Type::INT4),
        ("max_attempts", Type::INT4),
        ("round", Type::INT4),
        ("logs", Type::INT4),
        ("changes", Type::INT4),
        ("status", Type::INT2),
        ("failure", Type::INT2),
        ("final", Type::BOOL),
        ("event_id", Type::TEXT),
        ("type", Type::TEXT),
        ("source", Type::TEXT),
        ("subject", Type::TEXT),
        ("event_time", Type::TEXT),
    ];
    let mut new = batch.messages.iter().filter(|(_, entry)| !entry.known);
    let Some(first) = new.next() else {
        return Ok(());
    };
    let mut writer = pin!(copy(transaction, "levada_message", &COLUMNS).await?);
    for (id, entry) in std::iter::once(first).chain(new) {
        message(&mut writer, *id, entry, names).await?;
    }
    writer.finish().await?;
    Ok(())
}

async fn message(
    writer: &mut std::pin::Pin<&mut BinaryCopyInWriter>,
    (scope, part, off): Id,
    entry: &Entry<'_>,
    names: &Names,
) -> Result<(), Failure> {
    let key = &entry.first.key;
    let event = entry.first.event.as_deref();
    let attribute = |name: &str| event.and_then(|event| event.attribute(name)).map(text);
    let event_id = attribute("id").unwrap_or_default();
    let state = entry.state;
    let (attempts, max_attempts) = entry.attempts.unwrap_or_default();
    let name = |name: &str| number(names, name);
    let row: [&(dyn ToSql + Sync); 24] = [
        &key.accepted.0,
        &scope,
        &off,
        &entry.updated,
        &state
            .and_then(|state| state.next_attempt)
            .map(|time| time.0),
        &codes::event_hash(&event_id),
        &part,
        &name(&key.subscription.name.to_string()),
        &name(&key.subscription.channel.to_string()),
        &name(key.at.topic.as_str()),
        &state.and_then(|state| state.last_reason).map(reason),
        &int(attempts),
        &int(max_attempts),
        &state.map_or(1, |state| int(state.round)),
        &entry.counts.logs,
        &entry.counts.changes,
        &state.map_or(0, |state| small(codes::of_status(state.status))),
        &state
            .and_then(|state| state.failure)
            .map(|failure| small(codes::of_failure(failure))),
        &state.is_some_and(|state| state.is_final),
        &event_id,
        &attribute("type").unwrap_or_default(),
        &attribute("source").unwrap_or_default(),
        &attribute("subject"),
        &attribute("time"),
    ];
    Ok(writer.as_mut().write(&row).await?)
}

/// Writes attempts and checks.
pub(super) async fn attempts(
    transaction: &Transaction<'_>,
    batch: &Batch<'_>,
    node: &str,
    secrets: &mut Secrets,
) -> Result<(), Failure> {
    const COLUMNS: [(&str, Type); 26] = [
        ("accepted", Type::INT8),
        ("scope", Type::INT8),
        ("off", Type::INT8),
        ("started", Type::INT8),
        ("duration_us", Type::INT8),
        ("wait_ms", Type::INT8),
        ("planned_ms", Type::INT8),
        ("part", Type::INT4),
        ("n", Type::INT4),
        ("round", Type::INT4),
        ("attempt", Type::INT4),
        ("code", Type::INT4),
        ("kind", Type::INT2),
        ("cause", Type::INT2),
        ("wait_flags", Type::INT2),
        ("truncated", Type::BOOL),
        ("phase", Type::INT2),
        ("reason", Type::INT2),
        ("node", Type::TEXT),
        ("method", Type::TEXT),
        ("url", Type::TEXT),
        ("request", Type::TEXT),
        ("response", Type::TEXT),
        ("body", Type::BYTEA),
        ("error_kind", Type::INT2),
        ("error_text", Type::TEXT),
    ];
    if batch.logs.is_empty() {
        return Ok(());
    }
    let mut writer = pin!(copy(transaction, "levada_attempt", &COLUMNS).await?);
    for row in &batch.logs {
        attempt(&mut writer, row, node, secrets).await?;
    }
    writer.finish().await?;
    Ok(())
}

async fn attempt(
    writer: &mut std::pin::Pin<&mut BinaryCopyInWriter>,
    row: &Row<'_, DeliveryLog>,
    node: &str,
    secrets: &mut Secrets,
) -> Result<(), Failure> {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let (scope, part, off) = id_of(row.key);
    let log = row.item;
    let (answer, error, wait) = (log.response.as_ref(), log.error.as_ref(), log.wait.as_ref());
    let flags = wait.map_or(0, |wait| {
        i16::from(wait.retry_after) | i16::from(wait.parked) << 1
    });
    let row: [&(dyn ToSql + Sync); 26] = [
        &row.key.accepted.0,
        &scope,
        &off,
        &log.started.0,
        &i64::try_from(log.duration.as_micros()).unwrap_or(i64::MAX),
        &wait.map(|wait| millis(wait.delay)),
        &wait.map(|wait| millis(wait.planned)),
        &part,
        &row.number,
        &int(log.round),
        &int(log.attempt),
        &answer.map(|answer| i32::from(answer.code)),
        &small(codes::of_kind(log.kind)),
        &small(codes::of_trigger(log.trigger)),
        &flags,
        &answer.is_some_and(|answer| answer.truncated),
        &small(codes::of_phase(log.phase)),
        &log.reason.map(reason),
        &node,
        &log.request.method,
        &text(&log.request.url),
        &secrets.json(&log.request.headers, None),
        &answer.map(|answer| secrets.json(&answer.headers, None)),
        &answer.map(|answer| &answer.body[..]),
        &error.map(|error| reason(error.kind)),
        &error.map(|error| text(&error.message)),
    ];
    Ok(writer.as_mut().write(&row).await?)
}

/// Writes changes of status.
pub(super) async fn statuses(
    transaction: &Transaction<'_>,
    batch: &Batch<'_>,
) -> Result<(), Failure> {
    const COLUMNS: [(&str, Type); 11] = [
        ("accepted", Type::INT8),
        ("scope", Type::INT8),
        ("off", Type::INT8),
        ("at", Type::INT8),
        ("part", Type::INT4),
        ("n", Type::INT4),
        ("attempt", Type::INT4),
        ("max_attempts", Type::INT4),
        ("status", Type::INT2),
        ("retryable", Type::BOOL),
        ("reason", Type::INT2),
    ];
    if batch.events.is_empty() {
        return Ok(());
    }
    let mut writer = pin!(copy(transaction, "levada_status_change", &COLUMNS).await?);
    for row in &batch.events {
        status(&mut writer, row).await?;
    }
    writer.finish().await?;
    Ok(())
}

async fn status(
    writer: &mut std::pin::Pin<&mut BinaryCopyInWriter>,
    row: &Row<'_, StatusEvent>,
) -> Result<(), Failure> {
    let (scope, part, off) = id_of(row.key);
    let event = row.item;
    let row: [&(dyn ToSql + Sync); 11] = [
        &row.key.accepted.0,
        &scope,
        &off,
        &event.at.0,
        &part,
        &row.number,
        &int(event.attempt),
        &int(event.max_attempts),
        &small(codes::of_status(event.status)),
        &event.retryable,
        &event.reason.map(reason),
    ];
    Ok(writer.as_mut().write(&row).await?)
}
