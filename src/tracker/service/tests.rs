//! Pages of the service, asked one after the other.

use super::*;
use crate::crypto::kdf::{Group, NetworkName, TrackerSeed};
use crate::crypto::random::OsRandom;
use crate::crypto::secret::Passphrase;
use crate::wire::control::{Publication, PublicationKind, Who};
use crate::wire::id::{ContentId, SessionId};

fn service() -> Service {
    Service::new(10, Vec::new())
}

fn publish(service: &Service, number: u8, files: Vec<Publication>) -> PeerId {
    let peer = PeerId([number; 32]);
    let arrival = Arrival {
        peer,
        user: format!("user{number}").parse().unwrap(),
        session: SessionId::from_bytes([number; 7]),
        ip: "10.0.0.1".parse().unwrap(),
        port: Some(8001),
    };
    service.change().log_in(Instant::now(), arrival).unwrap();
    service.change().publish(peer, files).unwrap();
    peer
}

fn file(name: &str, content: [u8; 32], len: u64) -> Publication {
    Publication {
        name: name.parse().unwrap(),
        content: ContentId(content),
        len,
        kind: PublicationKind::File,
    }
}

/// All hits of all pages, and how many pages that were.
fn walk(mut ask: impl FnMut(Cursor) -> Page<Hit>) -> (Vec<Publication>, usize) {
    let (mut hits, mut pages, mut cursor) = (Vec::new(), 0, Some(Cursor::default()));
    while let Some(from) = cursor {
        pages += 1;
        assert!(pages < 1000, "{} hits, and no end", hits.len());
        let page = ask(from);
        hits.extend(page.entries.into_iter().map(|hit| hit.file));
        cursor = page.next;
    }
    (hits, pages)
}

fn both(service: &Service, term: &str) -> [(Vec<Publication>, usize); 2] {
    let search = |cursor| {
        service.search(&Search {
            term: term.to_owned(),
            cursor,
        })
    };
    let list = |cursor| {
        service
            .list_files(&ListFiles { user: None, cursor })
            .unwrap()
    };
    [walk(search), walk(list)]
}

/// Each of these is the bytes of an id behind its first sixteen, or the length.
#[test]
fn files_that_differ_only_in_what_no_cursor_names_are_listed_once_each() {
    let ids = (0..=255).map(|last| {
        let mut content = [7; 32];
        content[31] = last;
        file("same", content, 5)
    });
    let lengths = (1..=100).map(|len| file("same", [8; 32], len));
    let mut files: Vec<_> = ids.chain(lengths).collect();
    files.push(file("same", [9; 32], 5));
    let service = service();
    publish(&service, 1, files.clone());
    for (hits, _) in both(&service, "same") {
        assert_eq!(hits, files);
    }
}

#[test]
fn the_names_of_silent_peers_cost_no_request_more_than_its_share() {
    const SILENT: u32 = 20_000;
    let service = service();
    let names = (0..SILENT).map(|number| file(&format!("song {number}"), [1; 32], 5));
    let silent = publish(&service, 1, names.collect());
    let here = file("another song", [2; 32], 5);
    publish(&service, 2, vec![here.clone()]);
    service.hide(silent, || true);
    for (hits, pages) in both(&service, "song") {
        assert_eq!(hits, std::slice::from_ref(&here));
        assert!(pages > 1, "all of it for one request");
    }
    let registry = service.registry();
    let steps = [
        registry.search("song", Place::START).collect::<Vec<_>>(),
        registry.files(Place::START).collect(),
    ];
    for step in steps {
        assert!(matches!(step[..], [Err(next)] if next != Place::START));
    }
}

#[test]
fn a_name_leads_to_one_key_as_long_as_it_is_here_and_is_asked_for_as_often_as_searches() {
    let service = service();
    let [ana, bob] = [1, 2].map(|number| publish(&service, number, Vec::new()));
    let (now, ip) = (Instant::now(), "10.0.0.9".parse().unwrap());
    let caller = Caller {
        session: SessionId::from_bytes([2; 7]),
        peer: bob,
        from: (ip, 4000).into(),
        ip,
        listening_port: None,
        is_member: true,
        ticket: None,
    };
    let passphrase = Passphrase::parse("a passphrase for tests").unwrap();
    let group = Group::derive(&passphrase, NetworkName::default());
    let office = TicketOffice::new(&group, &TrackerSeed(Secret::new([7; 32])));
    let ask = |name: &str, now| {
        let moment = Moment {
            now,
            unix_ms: 0,
            office: &office,
            random: &mut OsRandom::new(),
            resume: None,
            credential_mark: None,
        };
        let user = name.parse().unwrap();
        service.respond(moment, &caller, Request::Who(Who { user }))
    };
    let Response::Who(entry) = ask("USER1", now) else {
        panic!("somebody of that name is here")
    };
    assert_eq!((entry.user.as_str(), entry.peer), ("user1", ana));
    assert_eq!(entry.addresses, ["10.0.0.1:8001".parse().unwrap()]);
    let nobody = Response::Refused(Refusal::NoSuchUser);
    assert_eq!(ask("user3", now), nobody);
    service.hide(ana, || true);
    assert_eq!(ask("user1", now), nobody, "whoever is silent is not here");
    let is_told_to_wait =
        |answer| matches!(answer, Response::Refused(Refusal::TooFast { wait_ms }) if wait_ms > 0);
    assert!((0..50).any(|_| is_told_to_wait(ask("user2", now))));
    assert!(!is_told_to_wait(ask("user2", now + Duration::from_secs(1))));
}
