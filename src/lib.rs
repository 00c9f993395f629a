//! p2pfs: private peer-to-peer file sharing for a group.
pub mod crypto;
pub mod disk;
pub mod keyfile;
pub mod net;
pub mod peer;
pub mod proto;
pub mod tracker;
pub mod wire;
