//! What a tracker tells Prometheus.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Process, text};

/// Sends bytes, and reads all that comes until the other side closes.
pub(crate) fn exchange(to: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // It may close before it has read all of what is too long.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    text(&answer)
}

/// Status and body of what lies under `path`.
pub(crate) fn get(from: SocketAddr, path: &str, host: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let answer = exchange(from, request.as_bytes());
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// All numbers of a tracker.
pub(crate) fn numbers(from: SocketAddr) -> BTreeMap<String, f64> {
    let (status, body) = get(from, "/metrics", &from.to_string());
    assert_eq!(status, 200, "{body}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// One of them.
pub(crate) fn number(from: SocketAddr, name: &str) -> f64 {
    let numbers = numbers(from);
    *numbers
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {numbers:#?}"))
}

/// Where the numbers of a tracker are that was started with `--metrics`.
pub(crate) fn metrics_of(tracker: &Process) -> SocketAddr {
    let output = tracker.output();
    let address = output
        .lines()
        .find_map(|line| line.strip_prefix("Metrics at  http://"));
    let address = address.and_then(|address| address.strip_suffix("/metrics"));
    address
        .expect("it was started with --metrics")
        .parse()
        .unwrap()
}

/// One that counts whole things.
pub(crate) fn count(from: SocketAddr, name: &str) -> usize {
    let text = number(from, name).to_string();
    text.parse().unwrap_or_else(|_| panic!("{name} is {text}"))
}
