//! What another process has in its memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

/// Does any page that the process may write hold `part`?
pub(crate) fn holds(pid: u32, part: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
    let memory = File::open(format!("/proc/{pid}/mem"))
        .expect("reading another process takes root, or kernel.yama.ptrace_scope=0");
    let mut read = 0_u64;
    let found = maps.lines().any(|line| {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") {
            return false;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        // Page by page where it must be: some of a mapping may be gone by now.
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        let mut len = 0;
        while let Ok(more @ 1..) = memory.read_at(&mut bytes[len..], start + len as u64) {
            len += more;
        }
        read += len as u64;
        memchr::memmem::find(&bytes[..len], part).is_some()
    });
    assert!(
        found || read > 1 << 20,
        "only {read} bytes of {pid} could be read"
    );
    found
}
