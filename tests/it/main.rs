//! The real binary, seen from outside: real processes, sockets, files and terminals.

mod namespaces;
mod seeds;
mod silence;
mod start;
mod support;
mod tracker;
mod transfer;
mod wire;
