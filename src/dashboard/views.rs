//! One module a view.

pub(super) mod channel;
pub(super) mod dead_letters;
pub(super) mod logs;
pub(super) mod message;
pub(super) mod messages;
pub(super) mod missing;
pub(super) mod overview;
pub(super) mod redrive;
pub(super) mod search;
pub(super) mod subscription;
