//! Events through every form they take.

mod forms;
mod kafka;
mod round_trips;
