//! Lines and tables as people see them.

use std::time::Instant;

use super::*;
use crate::peer::Progress;
use crate::wire::control::PublicationKind;
use crate::wire::id::ContentId;

fn hit(name: &str) -> Hit {
    let file = Publication {
        name: name.parse().unwrap(),
        content: ContentId([0x9f; 32]),
        len: 181_403_648,
        kind: PublicationKind::File,
    };
    Hit {
        file,
        owners: vec!["hans".parse().unwrap(), "yoda".parse().unwrap()],
        holders: 3,
        is_restricted: false,
    }
}

#[test]
fn a_folder_is_as_large_as_its_files_once_its_listing_is_here() {
    let mut file = hit("talks").file;
    (file.kind, file.len) = (PublicationKind::Folder, 395);
    let mut transfer = Transfer {
        id: 4,
        state: State::Paused,
        done: 0,
        len: file.len,
        rate: 0,
        sources: 0,
        file,
        is_slow: false,
    };
    let row = |transfer: &Transfer| {
        let shown = transfers(std::slice::from_ref(transfer), None);
        shown.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(row(&transfer), "4    talks/   0 %    folder   paused");
    (transfer.done, transfer.len) = (30 << 20, 60 << 20);
    assert_eq!(row(&transfer), "4    talks/   50 %   60.0 MiB   paused");
    assert_eq!(transfer_json(&transfer)["total"], 60 << 20);
}

#[test]
fn a_search_reads_as_a_table() {
    let both = [hit("talk.mp4"), hit("名前.txt")];
    let text = hits(&both, Scope::Everybody, false, None);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "NAME       SIZE        PEERS   ID            WHO");
    assert_eq!(
        lines[1],
        "talk.mp4   173.0 MiB   3       b3:9f9f9f9f   hans, yoda, and 1 more"
    );
    assert_eq!(
        lines[2],
        "名前.txt   173.0 MiB   3       b3:9f9f9f9f   hans, yoda, and 1 more"
    );
    let text = hits(&both, Scope::One, false, None);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "NAME       SIZE        ID            WHO");
    assert!(lines[1].starts_with("talk.mp4   173.0 MiB   b3:9f9f9f9f   hans"));
}

#[test]
fn what_is_not_shown_is_told_as_far_as_it_was_counted() {
    let line = |total, is_partial| {
        let hits = vec![hit("talk.mp4")];
        not_shown(&Listing {
            hits,
            total,
            is_partial,
        })
    };
    let told = |count: &str| Some(format!("… and {count}: refine, or give --limit"));
    assert_eq!(line(1, false), None);
    assert_eq!(line(38, false), told("37 more"));
    assert_eq!(line(1000, true), told("999+ more"));
    assert_eq!(line(1, true), told("more"));
}

#[test]
fn in_20_columns_a_name_and_its_id_remain() {
    let text = hits(
        &[hit("a talk of many words.mp4"), hit("名前.txt")],
        Scope::Everybody,
        false,
        Some(20),
    );
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "NAME     ID");
    assert_eq!(lines[1], "a t….mp4 b3:9f9f9f9f");
    assert_eq!(lines[2], "名前.txt b3:9f9f9f9f");
}

#[test]
fn a_folder_shows_as_one() {
    let mut folder = hit("talks");
    folder.file.kind = PublicationKind::Folder;
    let text = hits(&[folder.clone()], Scope::Everybody, false, None);
    assert!(text.contains("\ntalks/ "), "{text}");
    assert_eq!(file_json(&folder.file)["kind"], "folder");
    assert_eq!(file_json(&folder.file)["name"], "talks");
    assert_eq!(file_json(&hit("x").file)["kind"], "file");
}

#[test]
fn hostile_names_stay_on_their_line() {
    let text = hits(&[hit("a\u{202e}gpj.exe")], Scope::Everybody, false, None);
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("a\\u{202e}gpj.exe"));
    let warning = event(&Event::Warning {
        text: "a\x1b[2J\nb".into(),
    })
    .unwrap();
    assert_eq!(warning, "! a\\u{1b}[2J\\nb");
}

#[test]
fn what_all_downloads_hear_of_a_source_is_said_once() {
    let (mut said, now) = (Milestones::default(), Instant::now());
    let (eva, ana) = ("eva".parse().unwrap(), "ana".parse().unwrap());
    assert!(said.is_news(now, &eva, "it was cut"));
    assert!(!said.is_news(now, &eva, "it was cut"));
    assert!(said.is_news(now, &eva, "it sent wrong data"));
    assert!(said.is_news(now, &ana, "it was cut"));
    let later = now + Duration::from_secs(60);
    assert!(said.is_news(later, &eva, "it was cut"));
}

#[test]
fn progress_is_one_short_line() {
    let mut state = Progress {
        content: ContentId([1; 32]),
        name: "talk.mp4".parse().unwrap(),
        is_folder: false,
        done: 41 << 20,
        len: 100 << 20,
        rate: 118 << 20,
        sources: 3,
        is_slow: false,
    };
    assert_eq!(
        progress(&state, None),
        "↓ talk.mp4  41 %  118.0 MiB/s  00:00  3 peers"
    );
    for (width, line) in [
        (46, "↓ talk.mp4  41 %  118.0 MiB/s  00:00  3 peers"),
        (44, "↓ talk.mp4  41 %  118.0 MiB/s  00:00"),
        (19, "↓ talk.mp4  41 %"),
        (12, "↓ t…p4  41 %"),
        (5, "↓ … %"),
    ] {
        assert_eq!(progress(&state, Some(width)), line);
    }
    (state.rate, state.sources) = (0, 1);
    assert_eq!(progress(&state, None), "↓ talk.mp4  41 %  0 B/s  1 peer");
    state.is_slow = true;
    assert_eq!(
        progress(&state, None),
        "↓ talk.mp4  41 %  slow source  0 B/s  1 peer"
    );
    assert_eq!(progress_json(&state)["slow"], true);
    (state.is_slow, state.is_folder) = (false, true);
    assert_eq!(progress(&state, None), "↓ talk.mp4/  41 %  0 B/s  1 peer");
    (state.done, state.len) = (0, 0);
    assert_eq!(percent(&state), 100);
}
