//! What a stranger gets: nothing. Rows 27, 29 and 54.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::Group;

/// Bytes that no key made.
fn garbage(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn strangers_get_no_byte_and_the_same_five_seconds() {
    let group = Group::new();
    let (_tracker, tracker) = group.tracker();
    let mut peer = group.peer("ana", &tracker, &[]);
    let line = peer.output();
    let port = line
        .split("listening on ")
        .nth(1)
        .unwrap()
        .split('.')
        .next()
        .unwrap()
        .trim()
        .to_owned();
    let peer_address = format!("127.0.0.1:{port}");
    let knocks = [0, 1, 1335, 1336, 1337, 5000, 100_000];
    let threads: Vec<_> = [tracker.clone(), peer_address]
        .into_iter()
        .flat_map(|address| knocks.map(|len| (address.clone(), len)))
        .map(|(address, len)| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(&address).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
                let knocked = Instant::now();
                let _ = stream.write_all(&garbage(len));
                let mut answer = Vec::new();
                // The end, or a reset when bytes were left unread: but no byte.
                let _ = stream.read_to_end(&mut answer);
                (address, len, answer, knocked.elapsed())
            })
        })
        .collect();
    for thread in threads {
        let (address, len, answer, took) = thread.join().unwrap();
        assert!(
            answer.is_empty(),
            "{len} bytes to {address}: {} came back",
            answer.len()
        );
        assert!(
            took > Duration::from_secs(4) && took < Duration::from_secs(10),
            "{len} to {address}: {took:?}"
        );
    }
    peer.say("lap");
    peer.wait_for("ana");
}

#[test]
fn no_datagram_of_a_stranger_is_answered() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut peer = group.peer("ana", &address, &[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(&address).unwrap();
    for first in [0x11, 0x12, 0x13, 0x14, 0xff] {
        for len in [0, 1, 16, 96, 160, 288, 296, 304, 544, 1232, 1500, 65_507] {
            let mut datagram = garbage(len);
            if let Some(byte) = datagram.first_mut() {
                *byte = first;
            }
            let _ = socket.send(&datagram);
        }
    }
    // The peer's answer comes behind everything that the tracker made of the garbage.
    peer.say("search nothing");
    peer.wait_for("nothing matches");
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 2048]).is_err(), "an answer to garbage");
}

#[test]
fn mute_connections_keep_nobody_out() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let _mute: Vec<_> = (0..600)
        .filter_map(|_| TcpStream::connect(&address).ok())
        .collect();
    // All from one address, which has used up its places; members come from elsewhere, or a moment later.
    let mut ana = group.peer("ana", &address, &[]);
    ana.say("lap");
    ana.wait_for("ana");
}
