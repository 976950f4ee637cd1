//! How many messages of one segment fit, where an index alone can tell.

use rusqlite::Connection;

use super::scan::{self, Stream};
use crate::journal::{Filter, Status};

/// Whether no more of a message has to be looked at than what the indexes hold.
pub(super) fn is_covered(filter: &Filter) -> bool {
    let delivered = filter.status.contains(&Status::Delivered);
    let row = filter.event_id.is_some()
        || filter.event_type.is_some()
        || filter.event_source.is_some()
        || filter.is_final.is_some()
        || filter.retrying;
    let by_one = filter.status.is_empty() || (filter.reason.is_empty() && !delivered);
    !row && by_one
}

/// Messages of a segment that fit a covered filter, counted up to `limit`; `None`: too many parts
/// of indexes would have to be looked at.
pub(super) fn count(
    connection: &Connection,
    filter: &Filter,
    limit: usize,
) -> rusqlite::Result<Option<usize>> {
    let Some(streams) = scan::covering(connection, filter)? else {
        return Ok(None);
    };
    let mut sum = 0;
    for stream in streams {
        if sum < limit {
            sum += of(connection, &stream, filter, limit - sum)?;
        }
    }
    Ok(Some(sum))
}

fn of(
    connection: &Connection,
    stream: &Stream,
    filter: &Filter,
    limit: usize,
) -> rusqlite::Result<usize> {
    let (entries, mut values) = stream.select("1", filter);
    values.push(i64::try_from(limit).unwrap_or(i64::MAX));
    let sql = format!("select count(*) from ({entries} limit ?)");
    let mut statement = connection.prepare_cached(&sql)?;
    let params = rusqlite::params_from_iter(values);
    let count: i64 = statement.query_row(params, |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::*;
    use crate::clock::UnixMillis;
    use crate::dispatch::testing::subscription;
    use crate::journal::Reader;
    use crate::journal::contract::change;

    #[tokio::test]
    async fn messages_are_counted_where_an_index_tells() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, reader) = open(dir.path(), 8);
        let queued = |offset| change("a", offset, 1, Status::Queued, Some(503));
        let delivered = |offset| change("b", offset, 1, Status::Delivered, None);
        store
            .write(&(0..6).map(queued).collect::<Vec<_>>())
            .unwrap();
        store
            .write(&(6..20).map(delivered).collect::<Vec<_>>())
            .unwrap();
        let count = async |filter: Filter, limit| reader.count(&filter, limit).await.unwrap();
        let all = Filter::default();
        assert_eq!(
            count(all.clone(), 100).await,
            Some(20),
            "over several segments"
        );
        assert_eq!(count(all.clone(), 7).await, Some(7));
        let status = |status| Filter {
            status: vec![status],
            ..all.clone()
        };
        assert_eq!(count(status(Status::Queued), 100).await, Some(6));
        assert_eq!(count(status(Status::Bounced), 100).await, Some(0));
        assert_eq!(
            count(status(Status::Delivered), 100).await,
            None,
            "no index has these"
        );
        let of = |name: &str| vec![subscription(name).name];
        let filter = Filter {
            subscription: of("b"),
            ..all.clone()
        };
        assert_eq!(count(filter, 100).await, Some(14));
        let filter = Filter {
            subscription: of("a"),
            reason: vec!["http_503".into()],
            from: Some(UnixMillis(2000)),
            to: Some(UnixMillis(5000)),
            ..all.clone()
        };
        assert_eq!(count(filter, 100).await, Some(3));
        let filter = Filter {
            event_type: Some("even".into()),
            ..all
        };
        assert_eq!(count(filter, 100).await, None);
    }
}
