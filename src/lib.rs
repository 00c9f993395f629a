//! p2pfs: private peer-to-peer file sharing for a group, in one binary.
//!
//! One passphrase, one tracker, any number of peers; nothing on the wire that a stranger can read, guess or
//! forge. Five floors, each calling only those below it:
//!
//! ```text
//! cli               what people see               calls peer, tracker
//! peer  tracker     sockets, files, clocks        calls proto, crypto, wire, disk, net
//! proto             protocol state machines       calls crypto, wire     time and randomness are arguments
//! crypto            keys, envelopes, streams      calls wire             randomness is an argument
//! wire              what the bytes mean           calls nothing of ours
//! ```
//! Start reading at [`wire`] for the messages, at [`proto`] for the decisions, at [`peer`] or [`tracker`] for
//! what runs. `docs/protocol.md` tells the format, `ARCHITECTURE.md` the house. The library exists so that
//! tests and benches can call each room; it promises no stable interface.

pub mod cli;
pub mod config;
pub mod crypto;
pub mod disk;
pub mod ipc;
pub mod keyfile;
pub mod lan;
pub mod logging;
pub mod nearest;
pub mod net;
pub mod peer;
pub mod proto;
pub mod shutdown;
pub mod tracker;
pub mod web;
pub mod wire;
