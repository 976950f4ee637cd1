//! The embedded log: durable, in this process, one node.
