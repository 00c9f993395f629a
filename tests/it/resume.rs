//! Downloads that are killed, paused, or meet a full disk, and go on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::{Group, Process, assert_same, names_in, wait_until};

const MIB: u64 = 1 << 20;
/// Head and record of a journal, in bytes, and what a record of a piece begins with.
const HEAD: usize = 48;
const RECORD: usize = 40;
const PIECE: u8 = 1;

/// Pieces that the journal in `dir` speaks of, if there is one.
fn journalled(dir: &Path) -> Option<u64> {
    let journal = names_in(dir)
        .into_iter()
        .find(|name| name.ends_with(".journal"))?;
    let bytes = fs::read(dir.join(journal)).ok()?;
    let records = bytes.get(HEAD..).unwrap_or_default().chunks_exact(RECORD);
    Some(records.filter(|record| record[0] == PIECE).count() as u64)
}

fn get(group: &Group, address: &str, out: &Path, state: &str) -> Process {
    let out = out.to_str().unwrap();
    let args = [
        "get",
        "shared.bin",
        "--tracker",
        address,
        "--port",
        "0",
        "--bind",
        "127.0.0.1",
        "--out",
        out,
        "--no-seed",
        "--name",
        "bob",
        "--json",
    ];
    group.start(state, &args)
}

/// What the first line of progress in `output` says is there.
fn first_progress(output: &str) -> Option<u64> {
    let line = output
        .lines()
        .find(|line| line.contains(r#""type":"progress""#))?;
    let object: serde_json::Value = serde_json::from_str(line).ok()?;
    object["done"].as_u64()
}

#[test]
fn row_45_a_killed_download_goes_on_where_it_was() {
    const LEN: u64 = 300 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("shared.bin", LEN, 6);
    let mut seeder = group.peer(
        "seeder",
        &address,
        &["--share", file.to_str().unwrap(), "--up-limit", "100MiB"],
    );
    seeder.wait_for("Sharing");
    let out = group.folder("out");
    let mut here = 0;
    for step in 0..20 {
        let mut leecher = get(&group, &address, &out, "bob");
        // Some are killed after a few pieces, some at once.
        let until = here + step % 4 * 5;
        wait_until("pieces to come", || {
            journalled(&out).is_some_and(|now| now >= until)
        });
        let verified = journalled(&out).unwrap_or_default();
        leecher.kill();
        if let Some(resumed) = first_progress(&leecher.output()) {
            assert!(
                resumed / MIB * 100 >= here * 95,
                "{resumed} bytes of {here} pieces"
            );
        }
        assert!(
            names_in(&out)
                .iter()
                .all(|name| name.starts_with(".p2pfs-"))
        );
        here = verified;
    }
    assert!(
        (50..295).contains(&here),
        "{here} pieces after the last kill"
    );
    seeder.say("limit up off");
    let mut leecher = get(&group, &address, &out, "bob");
    assert_eq!(
        leecher.exit_within(Duration::from_secs(60)),
        Some(0),
        "{}",
        leecher.output()
    );
    let resumed = first_progress(&leecher.output()).unwrap_or(LEN);
    assert!(
        resumed / MIB * 100 >= here * 95,
        "{resumed} bytes of {here} pieces"
    );
    assert_same(&out.join("downloaded_shared.bin"), &file, LEN);
    assert_eq!(names_in(&out), ["downloaded_shared.bin"]);
}
