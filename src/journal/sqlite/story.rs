//! Everything about one message.

use std::time::Duration;

use rusqlite::{Connection, Row};

use super::codes;
use super::reader::Segments;
use super::scan;
use crate::clock::UnixMillis;
use crate::journal::{EventFacts, StoredLog, StoredStatus, Story, Wait, mask};
use crate::message::MessageId;

/// Of many entries the first and the last are told.
const FIRST: i64 = 50;
const LAST: i64 = 200;

pub(super) fn story(segments: &mut Segments<'_>, id: MessageId) -> rusqlite::Result<Option<Story>> {
    for known in segments.known.clone() {
        let connection = segments.open(&known)?;
        if let Some((row, message)) = scan::find(connection, id)? {
            let (statuses, logs) = entries(connection, row, &message.event)?;
            return Ok(Some(Story {
                message,
                statuses,
                logs,
            }));
        }
    }
    Ok(None)
}

fn entries(
    connection: &Connection,
    message: i64,
    event: &EventFacts,
) -> rusqlite::Result<(Vec<StoredStatus>, Vec<StoredLog>)> {
    let mut statement = connection.prepare_cached(
        "select e.n, e.change, e.statuses, e.kind, e.phase, e.cause, e.round, e.attempt, e.started, e.duration_us,
           e.reason, n.text, m.text, coalesce(u.text, e.url), coalesce(q.text, e.request), e.code,
           coalesce(a.text, e.response), e.body, e.truncated, e.error_kind, e.error_text, e.wait_ms, e.planned_ms,
           e.wait_flags
         from entry e left join name n on n.id = e.node left join name m on m.id = e.method
           left join name u on u.id = e.url left join name q on q.id = e.request
           left join name a on a.id = e.response
         where e.message = ?1 and (e.n <= ?2 or e.n > (select max(n) from entry where message = ?1) - ?3)
         order by e.n",
    )?;
    let mut rows = statement.query([message, FIRST, LAST])?;
    let (mut statuses, mut logs) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        if let Some(packed) = row.get::<_, Option<Vec<u8>>>(2)? {
            statuses.extend(codes::unpack(&packed, row.get(1)?));
        }
        if let Some(kind) = row.get(3)? {
            logs.push(log(row, kind, event)?);
        }
    }
    Ok((statuses, logs))
}

fn log(row: &Row<'_>, kind: i64, event: &EventFacts) -> rusqlite::Result<StoredLog> {
    let headers = |at: usize| -> rusqlite::Result<Vec<(String, String)>> {
        let text: Option<String> = row.get(at)?;
        Ok(text.map_or_else(Vec::new, |text| mask::from_json(&text, event)))
    };
    let text = |at: usize| -> rusqlite::Result<String> {
        Ok(row.get::<_, Option<String>>(at)?.unwrap_or_default())
    };
    let delay: Option<i64> = row.get(21)?;
    let planned: Option<i64> = row.get(22)?;
    let flags = row.get::<_, Option<i64>>(23)?.unwrap_or(0);
    let millis = |millis: i64| Duration::from_millis(codes::unsigned(millis.max(0)));
    let error = codes::reason_name(row.get(19)?);
    Ok(StoredLog {
        number: row.get(0)?,
        kind: codes::kind(kind),
        phase: codes::phase(row.get(4)?).to_owned(),
        trigger: codes::trigger(row.get(5)?),
        round: row.get(6)?,
        attempt: row.get(7)?,
        started: UnixMillis(row.get(8)?),
        duration_us: codes::unsigned(row.get(9)?),
        reason: codes::reason_name(row.get(10)?),
        node: text(11)?,
        method: text(12)?,
        url: text(13)?,
        request_headers: headers(14)?,
        code: row.get(15)?,
        response_headers: headers(16)?,
        body: row.get::<_, Option<Vec<u8>>>(17)?.unwrap_or_default(),
        truncated: row.get::<_, Option<bool>>(18)?.unwrap_or(false),
        error: match error {
            Some(kind) => Some((kind, text(20)?)),
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
