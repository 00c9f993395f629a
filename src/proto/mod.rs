//! The contract of all machines: they think, drivers own sockets, files and clocks.
//!
//! A driver calls `handle_*` when something happened, then empties `poll_*` until it yields nothing:
//! first what to send, then what to do, then when to come back. Time and randomness are arguments, so
//! that tests and the simulation run hours in milliseconds and every run repeats.

pub mod announce;
pub mod attachment;
pub mod backoff;
mod crowd;
pub mod endpoint;
pub mod gate;
pub mod limiter;
pub mod meter;
pub mod neighbours;
pub mod picker;
pub mod requests;
mod resumes;
pub mod session;
mod sessions;
pub mod swarm;
pub mod talk;
pub mod tempo;
