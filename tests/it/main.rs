//! The real binary, seen from outside: real processes, sockets, files and terminals.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod audience;
mod chat;
mod commands;
mod disk;
mod doctor;
mod ending;
mod faults;
mod folders;
mod hashing;
mod lan;
mod lock;
mod login;
mod names;
mod namespaces;
mod neighbours;
mod offers;
mod oneshot;
mod ops;
mod people;
mod privacy;
mod resume;
mod screens;
mod secrets;
mod seeds;
mod sharing;
mod shipping;
mod silence;
mod start;
mod support;
mod swarm;
mod talk;
mod terminal;
mod tracker;
mod transfer;
mod web;
mod wire;
