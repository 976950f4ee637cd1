//! The table of options: each described once.

use super::{Config, Raw, Value};
use crate::spelling::{likeness, nearest as nearest_of};

/// One option.
#[derive(Debug)]
pub struct OptionDef {
    /// Its key in the file, with the section before a dot.
    pub key: &'static str,
    /// What its value looks like, for the help.
    pub value: &'static str,
    /// What it does, in lines.
    pub doc: &'static [&'static str],
    /// Its value in a configuration, secrets masked.
    pub show: fn(&Config) -> Raw,
    /// Takes a value over.
    pub take: fn(&mut Config, Raw) -> Result<(), String>,
}

impl OptionDef {
    /// The flag without its dashes: `admin.listen` is `admin-listen`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.key.replace('.', "-")
    }

    /// The variable: `admin.listen` is `LEVADA_ADMIN_LISTEN`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!(
            "LEVADA_{}",
            self.key.replace(['.', '-'], "_").to_uppercase()
        )
    }

    /// Section and name in the file; no section: at the top.
    #[must_use]
    pub fn place(&self) -> (Option<&'static str>, &'static str) {
        match self.key.split_once('.') {
            Some((section, name)) => (Some(section), name),
            None => (None, self.key),
        }
    }

    /// What the option does, in one paragraph.
    #[must_use]
    pub fn help(&self) -> String {
        let lines: Vec<_> = self.doc.iter().map(|line| line.trim()).collect();
        lines.join(" ")
    }
}

/// Looks an option up by its key.
pub(super) fn find(key: &str) -> Option<&'static OptionDef> {
    OPTIONS.iter().find(|option| option.key == key)
}

/// The key that looks most like `key`, if one does.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    nearest_of(OPTIONS.iter().map(|option| {
        let name = option.key.rsplit('.').next().unwrap_or(option.key);
        // Somebody may have left the section out.
        let bare = likeness(key, name) - 0.02;
        (likeness(key, option.key).max(bare), option.key)
    }))
}

macro_rules! options {
    ($( $(#[doc = $doc:literal])+ $key:literal $value:literal => $($field:ident).+; )+) => {
        /// Every option, those without a section first, sections together.
        pub static OPTIONS: &[OptionDef] = &[$(
            OptionDef {
                key: $key,
                value: $value,
                doc: &[$($doc),+],
                show: |config| config.$($field).+.show(),
                take: |config, raw| config.$($field).+.take(raw),
            },
        )+];
    };
}

options! {
    /// Where producers post events.
    "listen" "ADDR:PORT" => listen;

    /// Directory for what has to survive a restart: the embedded log, the ids of this node's
    /// group members. Only one process can use it at a time.
    "data-dir" "DIR" => data_dir;

    /// Manifests: a file, or a directory with .yaml, .yml and .json files. Changes are in force
    /// within a second. Can be given several times.
    "manifests" "DIR|FILE" => manifests;

    /// Addresses of Kafka brokers, separated by commas. Without any, events are kept in the
    /// embedded log under data-dir, which serves one node.
    "bootstrap-servers" "HOST:PORT,..." => bootstrap_servers;

    /// What this node does: receiver (takes events), dispatcher (delivers them), admin (answers
    /// the API). Splitting roles over nodes needs Kafka. Every node has health and metrics.
    "roles" "ROLE,..." => roles;

    /// How long a stopping node may take to finish or put aside what is in flight.
    "drain-timeout" "DURATION" => drain_timeout;

    /// Give up this node's place in its consumer groups when it stops. Without it the place is
    /// kept for a while, so that a restart takes over without a rebalance.
    "leave" "true|false" => leave;

    /// Threads that run the work; 0: one for each core.
    "worker-threads" "COUNT" => worker_threads;

    /// Attributes and data of one event may have so many bytes; a larger one is answered 413.
    "max-event-bytes" "BYTES" => ingress.max_event_bytes;

    /// Connections from producers at one time; more wait to be accepted.
    "max-connections" "COUNT" => ingress.max_connections;

    /// How long the log may take to store an event before the producer is answered 500.
    "append-timeout" "DURATION" => ingress.append_timeout;

    /// How consumer groups are balanced: classic (any Kafka; a restarted node takes over at
    /// once), or consumer (KIP-848, Kafka 4.0 and later).
    "group-protocol" "classic|consumer" => kafka.group_protocol;

    /// Memory for the index of what waits for a retry, in bytes. At the bound nothing more is
    /// put aside and channel partitions pause.
    "parked-index-bytes" "BYTES" => memory.parked_index_bytes;

    /// Any property of librdkafka, such as security.protocol or sasl.username. As a flag:
    /// --kafka-properties NAME=VALUE, several times; as a variable: one NAME=VALUE a line.
    "kafka.properties" "NAME=VALUE" => kafka.properties;

    /// How long a connection to a subscriber may take to be made.
    "delivery.connect-timeout" "DURATION" => delivery.connect_timeout;

    /// The longest Retry-After that is obeyed when the subscription does not say.
    "delivery.retry-after-max" "DURATION" => delivery.retry_after_max;

    /// Delays shorter than this are waited for in memory; longer ones in the retry topic.
    "delivery.inline-retry-max" "DURATION" => delivery.inline_retry_max;

    /// Bytes of events that are being delivered, over all subscriptions.
    "memory.in-flight-bytes" "BYTES" => memory.in_flight_bytes;

    /// Bytes of events that were fetched ahead, over all subscriptions.
    "memory.fetch-bytes" "BYTES" => memory.fetch_bytes;

    /// Topic of a channel; {namespace} and {name} are the channel's.
    "names.channel-topic" "TEMPLATE" => names.channel_topic;

    /// Consumer group of a subscription; {namespace}, {subscription} and {uid} are its own,
    /// {channel} is the name of its channel.
    "names.group" "TEMPLATE" => names.group;

    /// Where it is kept what became of every message: sqlite (under data-dir), postgres (for several
    /// nodes, each of which then shows the messages of all), or off.
    "journal.store" "sqlite|postgres|off" => journal.store;

    /// The database for journal.store postgres, such as
    /// postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=require. Better set by LEVADA_JOURNAL_URL
    /// than on the command line.
    "journal.url" "URL" => journal.url;

    /// How long messages stay in the journal.
    "journal.retention" "DURATION" => journal.retention;

    /// Bytes that the journal may take; the oldest messages go first.
    "journal.max-bytes" "BYTES" => journal.max_bytes;

    /// Where health, metrics and the API are served.
    "admin.listen" "ADDR:PORT" => admin.listen;

    /// A token that every request to the admin port has to carry (Authorization: Bearer TOKEN),
    /// health checks apart. Better set by LEVADA_ADMIN_TOKEN than on the command line.
    "admin.token" "TOKEN" => admin.token;

    /// Allow an admin.listen beyond this machine without a token.
    "admin.open" "true|false" => admin.open;

    /// Show everything and change nothing: the API and the page refuse redrives, redelivery and
    /// retries by hand.
    "admin.read-only" "true|false" => admin.read_only;

    /// Names under which the admin port may be called, besides localhost and IP addresses.
    "admin.allowed-hosts" "NAME,..." => admin.allowed_hosts;

    /// Attempts in 5 minutes from which their share of successes says something.
    "health.attempts" "COUNT" => health.attempts;

    /// Attempts in 5 minutes from which it says something that all of them failed.
    "health.attempts-all-failed" "COUNT" => health.attempts_all_failed;

    /// A subscription is failing when fewer attempts in a hundred succeed.
    "health.failing-below" "PERCENT" => health.failing_below;

    /// A subscription is degraded when fewer attempts in a hundred succeed.
    "health.degraded-below" "PERCENT" => health.degraded_below;

    /// A subscription is degraded when an event waits longer for its first attempt.
    "health.untried" "DURATION" => health.untried;

    /// A subscription is slow when 95 % of its attempts take no longer than so many times the
    /// hour's median,
    "health.slow-factor" "COUNT" => health.slow_factor;

    /// and longer than this.
    "health.slow" "DURATION" => health.slow;

    /// A subscription is idle when nothing happened for so long.
    "health.idle" "DURATION" => health.idle;

    /// Form of diagnostics on standard error: text for people, json for machines.
    "log.format" "text|json" => log.format;

    /// How much is told: error, warn, info, debug or trace, also by part of the program, such as
    /// info,levada::delivery=debug.
    "log.level" "FILTER" => log.level;
}
