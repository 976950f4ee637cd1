//! The journal: what became of every message, for people and programs that ask.
//!
//! Dispatch tells the journal a [`Change`] for each attempt, check and decision; the journal stores
//! changes in batches, off the path of delivery, and never holds delivery up. The admin port and
//! the dashboard read it through [`Reader`].

mod codes;
#[cfg(test)]
mod contract;
mod counts;
mod keeper;
mod mask;
mod model;
pub mod postgres;
mod read;
mod recorder;
pub mod sqlite;
pub mod transitions;
mod walk;

pub use keeper::{KeepError, Keeper};
pub use model::{
    Change, DeliveryLog, FinalReason, LogError, LogKind, LogRequest, LogResponse, MessageKey,
    MessageState, Status, StatusEvent, Trigger, Wait,
};
pub use read::{
    Bucket, Cursor, EventFacts, Filter, Gap, JournalError, Message, Page, PageRequest, Reach,
    ReadFuture, Reader, ReasonCount, Span, StoredLog, StoredStatus, Story,
};
pub use recorder::{Bounds, Queued, Recorder, Ticket, Writer};
