//! Connections to the database: where it is, how long anything may take, what went wrong.

use std::error::Error as _;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
    TimeoutType,
};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::delivery;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);
/// How long sent bytes may stay without an acknowledgement.
const SILENCE: Duration = Duration::from_secs(10);
/// How long an answer may wait for its turn.
const TURN: Duration = Duration::from_secs(5);

/// Where the database is, and as whom it is used. Never shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Config);

/// Text that is no [`Address`]. It is not repeated, since it holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; expected postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=require, where @ : / ? # % in a \
     password are written %40 %3A %2F %3F %23 %25"
)]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refused = |why: &str| Err(AddressError(why.to_owned()));
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
        {
            return refused("it does not begin with postgres://");
        }
        match text.parse::<Config>() {
            Ok(config) if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() => {
                refused("it names no host")
            }
            Ok(config) => Ok(Self(config)),
            Err(error) => {
                // Of all that the parser says only this repeats nothing of the text.
                let said = error.source().map(ToString::to_string);
                let said = said.filter(|said| said.starts_with("invalid value for option"));
                refused(said.as_deref().unwrap_or("it cannot be read"))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.0.get_ports();
        for (at, host) in self.0.get_hosts().iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}:{port}")?,
                Host::Unix(path) => write!(f, "{comma}{}:{port}", path.display())?,
            }
        }
        write!(f, "/{}", self.0.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// What connections are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Write,
    Read,
}

impl Purpose {
    fn connections(self) -> usize {
        match self {
            Self::Write => 1,
            Self::Read => 4,
        }
    }

    /// Lists are walked along an index, never sorted: the planner is told so, and that what it then
    /// reckons as dear is not worth compiling.
    fn session(self) -> &'static str {
        match self {
            Self::Write => {
                "set statement_timeout = '15s'; set lock_timeout = '5s';
                 set idle_in_transaction_session_timeout = '30s'; set jit = off;
                 set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off"
            }
            Self::Read => {
                "set statement_timeout = '2s'; set default_transaction_read_only = on; set jit = off;
                 set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off;
                 set enable_hashjoin = off; set enable_mergejoin = off"
            }
        }
    }
}

/// Connections that are made when they are needed.
pub(super) fn pool(address: &Address, purpose: Purpose) -> Pool {
    let mut config = address.0.clone();
    config.connect_timeout(CONNECT).tcp_user_timeout(SILENCE);
    config.keepalives_idle(SILENCE);
    if config.get_application_name().is_none() {
        config.application_name("levada");
    }
    let tls = MakeRustlsConnect::new(delivery::tls(config.get_ssl_mode() != SslMode::Disable));
    // It may have been closed while it lay still, and nobody heard.
    let recycling_method = RecyclingMethod::Verified;
    let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method });
    let session = purpose.session();
    Pool::builder(manager)
        .max_size(purpose.connections())
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(TURN))
        .create_timeout(Some(CONNECT * 2))
        .recycle_timeout(Some(CONNECT))
        .post_create(Hook::async_fn(move |client, _| {
            Box::pin(async move {
                let set = client.batch_execute(session).await;
                set.map_err(HookError::Backend)
            })
        }))
        .build()
        .expect("a runtime is named")
}

/// Something was not answered, or not as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{}", said(.0))]
    Database(#[from] tokio_postgres::Error),
    #[error("{}", unreached(.0))]
    Unreached(#[from] PoolError),
    #[error("the database did not answer within {0:?}")]
    Late(Duration),
    #[error("the database is still busy with a batch whose end was not heard of")]
    Undecided,
    #[error("the database is PostgreSQL {0}: 13 or later is needed")]
    Old(i32),
    #[error(
        "the database has the encoding {0}: make one with UTF8 (create database ... encoding 'UTF8' template template0)"
    )]
    Encoding(String),
    #[error("the journal holds {0:?} where a name should be")]
    Name(String),
    #[error("the journal's tables are of version {0}, and this program knows {1}: update it")]
    Newer(i32, i32),
}

impl Failure {
    /// Whether the database refuses what is in a batch, which will not get better.
    pub(super) fn is_the_batch(&self) -> bool {
        // Values out of range, constraints, limits; but not a row that another node has just made.
        let classes = ["22", "23", "54"];
        self.state().is_some_and(|state| {
            classes.iter().any(|class| state.code().starts_with(class))
                && *state != SqlState::UNIQUE_VIOLATION
        })
    }

    /// Whether another node made the same row at the same moment.
    pub(super) fn is_a_race(&self) -> bool {
        self.state() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Database(error) => error.code(),
            _ => None,
        }
    }
}

fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) if *error.code() == SqlState::UNDEFINED_TABLE => {
            "the journal's tables are not there: a node that delivers makes them when it starts"
                .to_owned()
        }
        Some(error) => format!("{} ({})", error.message(), error.code().code()),
        None => match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

fn unreached(error: &PoolError) -> String {
    match error {
        PoolError::Timeout(TimeoutType::Wait) => "too many questions at once".to_owned(),
        PoolError::Timeout(_) => "the database did not answer in time".to_owned(),
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            said(error)
        }
        other => other.to_string(),
    }
}

/// Works on a connection, and gives it up when that takes too long or goes wrong: an answer may still
/// be on its way, and what was prepared may not fit the tables any more.
pub(super) async fn within<T>(
    limit: Duration,
    mut client: Object,
    work: impl AsyncFnOnce(&mut Object) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let done = tokio::time::timeout(limit, work(&mut client)).await;
    let done = done.unwrap_or(Err(Failure::Late(limit)));
    if done.is_err() {
        drop(Object::take(client));
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_or_refused_without_repeating_it() {
        let address: Address = "postgres://me:s3cret@db.example:5433/levada?sslmode=require"
            .parse()
            .unwrap();
        assert_eq!(address.to_string(), "db.example:5433/levada");
        assert!(!format!("{address:?}").contains("s3cret"));
        for (text, wanted) in [
            ("", "does not begin with postgres://"),
            ("mysql://me:s3cret@a/b", "does not begin with postgres://"),
            ("postgres://", "names no host"),
            ("postgres:///levada?password=s3cret", "names no host"),
            (
                "postgres://me:s3cret@a/b?sslmode=s3cret",
                "invalid value for option `sslmode`",
            ),
            ("postgres://a/b?s3cret=1", "it cannot be read"),
            (
                "postgres://me:s3cret@a:x/b",
                "invalid value for option `port`",
            ),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
