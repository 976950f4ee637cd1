//! The ingress as a whole: a real server on a socket, a log in memory.

mod harness;
mod http2;
mod limits;
mod requests;
mod vectors;
