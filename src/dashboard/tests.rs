//! The page over a journal in memory.

pub(super) mod fake;
mod pages;
mod sources;
