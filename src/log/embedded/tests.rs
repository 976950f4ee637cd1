//! The embedded log's own: what the contract does not ask of every log.
