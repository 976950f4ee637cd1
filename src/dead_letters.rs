//! Dead letters: looking at them, and sending them round again.
//!
//! They are read from a subscription's dead-letter topic as it is, in bounded steps; nothing is
//! indexed. A redrive writes each one's event to the retry topic as a message with all its
//! attempts before it, from where whoever dispatches takes it; so any node can start one.
//!
//! What was sent again stays in the dead-letter topic. That it was sent is written down in the
//! subscription's redrive topic (`ledger`), together with what each redrive is about, whose it
//! is and how far it is: a redrive goes on after a restart of its node, and the next one leaves
//! out what an earlier one sent.

mod filter;
mod groups;
mod ledger;
mod letter;
mod listing;
mod outcomes;
mod redrive;
mod scan;
mod service;
mod shared;
mod spans;
#[cfg(test)]
mod tests;

pub use filter::Filter;
pub use groups::{Group, Groups};
pub(crate) use ledger::topic as redrives_topic;
pub use ledger::{Redrive, State, Terms};
pub use letter::DeadLetter;
pub use listing::{Listed, Listing, Page};
pub use redrive::{Command, RedriveId, RedriveIdError};
pub use service::{DeadLetters, Error, Planned, Selection};
