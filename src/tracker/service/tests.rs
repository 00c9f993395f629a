//! Pages of the service, asked one after the other.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::crypto::kdf::{Group, NetworkName, TrackerSeed};
use crate::crypto::random::OsRandom;
use crate::crypto::secret::Passphrase;
use crate::wire::control::{Audience, Files, ListPeers, Publication, PublicationKind, Who, split};
use crate::wire::id::{ContentId, SessionId};

/// Somebody for whom nothing is but what is for everybody.
const READER: PeerId = PeerId([99; 32]);

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
    let files = Files::for_everybody(files);
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
        let term = term.to_owned();
        service.search(READER, &Search { term, cursor })
    };
    let list = |cursor| {
        service
            .list_files(READER, &ListFiles { user: None, cursor })
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
        registry
            .search(READER, "song", Place::START)
            .collect::<Vec<_>>(),
        registry.files(READER, Place::START).collect(),
    ];
    for step in steps {
        assert!(matches!(step[..], [Err(next)] if next != Place::START));
    }
}

#[test]
fn a_name_leads_to_one_key_as_long_as_it_is_here_and_is_asked_for_as_often_as_searches() {
    let service = service();
    let [ana, bob] = [1, 2].map(|number| publish(&service, number, Vec::new()));
    let now = Instant::now();
    let caller = caller(bob);
    let ask = |name: &str, now| {
        let moment = Moment {
            now,
            unix_ms: 0,
            office: &OFFICE,
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

#[derive(Clone, Debug)]
enum Change {
    /// Owner, names, contents, and whom they are for: bits.
    Publish(u8, Vec<(u8, u8)>, u8),
    Unpublish(u8, (u8, u8)),
    Hide(u8),
    Show(u8),
    Leave(u8),
}

const PEERS: u8 = 5;

/// Answers say since when somebody is here.
static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);
static OFFICE: LazyLock<TicketOffice> = LazyLock::new(|| {
    let group = {
        let passphrase = Passphrase::parse("a passphrase for tests").expect("long enough");
        Group::derive(&passphrase, NetworkName::default())
    };
    TicketOffice::new(&group, &TrackerSeed(Secret::new([7; 32])))
});

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let (owner, file) = (0..PEERS, (0_u8..6, 0_u8..4));
    let files = prop::collection::vec(file.clone(), 1..4);
    let change = prop_oneof![
        6 => (owner.clone(), files, 0_u8..1 << PEERS)
            .prop_map(|(owner, files, to)| Change::Publish(owner, files, to)),
        2 => (owner.clone(), file).prop_map(|(owner, file)| Change::Unpublish(owner, file)),
        1 => owner.clone().prop_map(Change::Hide),
        1 => owner.clone().prop_map(Change::Show),
        1 => owner.prop_map(Change::Leave),
    ];
    prop::collection::vec(change, 1..40)
}

fn key(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn arrive(service: &Service, number: u8) {
    let arrival = Arrival {
        peer: key(number),
        user: format!("user{number}").parse().unwrap(),
        session: SessionId::from_bytes([number; 7]),
        ip: "10.0.0.1".parse().unwrap(),
        port: Some(8001),
    };
    service.change().log_in(*NOW, arrival).unwrap();
}

/// Makes the change, as far as `reader` may know of it: of what is not for it nothing is published.
fn apply(service: &Service, change: &Change, reader: Option<u8>) {
    let named = |(name, content): &(u8, u8)| {
        let names = ["song", "Song", "a song", "s\u{f6}ng", "other", "songs"];
        file(names[usize::from(*name)], [*content + 1; 32], 5)
    };
    match change {
        Change::Publish(owner, files, to) => {
            let to = (0..PEERS).filter(|number| to >> number & 1 == 1);
            let audience = Audience::of(to.map(key)).unwrap_or_default();
            let files: Vec<_> = files.iter().map(named).collect();
            let is_seen = |reader| reader == *owner || audience.has(&key(reader));
            if reader.is_none_or(is_seen) {
                let files = Files { files, audience };
                let _ = service.change().publish(key(*owner), files);
            } else {
                service.change().unpublish(key(*owner), &files);
            }
        }
        Change::Unpublish(owner, file) => {
            service.change().unpublish(key(*owner), &[named(file)]);
        }
        Change::Hide(owner) => service.hide(key(*owner), || true),
        Change::Show(owner) => arrive(service, *owner),
        Change::Leave(owner) => {
            service.change().leave(key(*owner));
            arrive(service, *owner);
        }
    }
}

fn caller(peer: PeerId) -> Caller {
    Caller {
        peer,
        session: SessionId::from_bytes([7; 7]),
        from: "10.0.0.9:1".parse().unwrap(),
        ip: "10.0.0.9".parse().unwrap(),
        listening_port: Some(8001),
        is_member: true,
        ticket: None,
    }
}

/// Every byte of every page that `reader` can get.
fn answers(service: &Service, reader: u8) -> Vec<Vec<u8>> {
    let caller = caller(key(reader));
    let mut answers = Vec::new();
    let mut walk = |request: &dyn Fn(Cursor) -> Request| {
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor.take() {
            let mut plaintext = [0; size_of::<Plaintext>()];
            let moment = Moment {
                now: *NOW,
                unix_ms: 0,
                office: &OFFICE,
                random: &mut OsRandom::new(),
                resume: None,
                credential_mark: None,
            };
            let answer = (RequestId(1), [0; 8]);
            let written = service.answer(moment, &caller, request(from), answer, &mut plaintext);
            let bytes = plaintext[..written.class.unwrap()].to_vec();
            let (head, body) = split(&bytes).unwrap();
            cursor = match Response::decode(&head, body).unwrap() {
                Response::Found(page) | Response::Files(page) => page.next,
                Response::Located(page) => page.next,
                Response::Peers(page) => page.next,
                Response::Who(_) => None,
                other => panic!("{other:?}"),
            };
            answers.push(bytes);
        }
    };
    for term in ["song", "s", "other"] {
        walk(&|cursor| {
            Request::Search(Search {
                term: term.to_owned(),
                cursor,
            })
        });
    }
    walk(&|cursor| Request::ListPeers(ListPeers { cursor }));
    walk(&|cursor| Request::ListFiles(ListFiles { user: None, cursor }));
    for content in 1..=4 {
        let content = ContentId([content; 32]);
        walk(&|cursor| Request::Locate(Locate { content, cursor }));
    }
    let here = service.registry();
    let users = here.peers(None).map(|(_, record)| record.user.clone());
    let users: Vec<_> = users.collect();
    drop(here);
    for user in users {
        walk(&|_| Request::Who(Who { user: user.clone() }));
        let user = Some(user);
        walk(&|cursor| {
            Request::ListFiles(ListFiles {
                user: user.clone(),
                cursor,
            })
        });
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// To whom something is not shown it is as if it had never been published: each byte of each answer.
    #[test]
    fn whatever_is_for_others_leaves_no_trace_in_any_answer(changes in changes()) {
        let all = service();
        (0..=PEERS).for_each(|number| arrive(&all, number));
        changes.iter().for_each(|change| apply(&all, change, None));
        for reader in 0..=PEERS {
            let seen = service();
            (0..=PEERS).for_each(|number| arrive(&seen, number));
            changes.iter().for_each(|change| apply(&seen, change, Some(reader)));
            let (all, seen) = (answers(&all, reader), answers(&seen, reader));
            prop_assert!(all == seen, "{}", reader);
        }
    }
}

/// A page ends anywhere: among what is for chosen people, between that and the rest, and behind it.
#[test]
fn what_is_for_chosen_people_and_the_rest_are_walked_page_after_page() {
    const EACH: u8 = 60;
    let service = Service::new(usize::from(EACH), Vec::new());
    for number in 0..EACH {
        arrive(&service, number);
        let audience = Audience::of([READER]).unwrap();
        let own = [
            file(&format!("song {number}"), [7; 32], 5),
            file(&format!("song for one {number}"), [8; 32], 5),
        ];
        let [open, secret] = own.map(|file| vec![file]);
        let parcels = Files {
            files: secret.clone(),
            audience: audience.clone(),
        };
        let mut registry = service.change();
        registry
            .publish(key(number), Files::for_everybody(open))
            .unwrap();
        registry.publish(key(number), parcels).unwrap();
        // Some hold it for everybody, the others for the reader.
        let same = Files {
            files: vec![file("same", [9; 32], 5)],
            audience: if number % 2 == 0 {
                Audience::EVERYBODY
            } else {
                audience
            },
        };
        registry.publish(key(number), same).unwrap();
    }
    let count = usize::from(EACH);
    let [(found, _), (listed, _)] = both(&service, "song");
    assert_eq!(
        (found.len(), listed.len()),
        (2 * count, 2 * count + 1 + count / 2)
    );
    assert!(
        found[..count]
            .iter()
            .all(|file| file.name.as_str().contains("one"))
    );
    for (reader, sees) in [(READER, count), (key(EACH + 1), count / 2)] {
        let caller = caller(reader);
        let (mut holders, mut cursor) = (Vec::new(), Some(Cursor::default()));
        while let Some(from) = cursor {
            let locate = Locate {
                content: ContentId([9; 32]),
                cursor: from,
            };
            let mut plaintext = [0; size_of::<Plaintext>()];
            let answer = (RequestId(1), [0; 8]);
            let registry = service.registry();
            let len = service.locate(&registry, &caller, &locate, answer, &mut plaintext);
            let (head, body) = split(&plaintext[..len]).unwrap();
            let Response::Located(page) = Response::decode(&head, body).unwrap() else {
                panic!("no page")
            };
            holders.extend(page.entries.into_iter().map(|holder| holder.peer));
            cursor = page.next;
        }
        assert_eq!(holders.len(), sees);
        holders.sort();
        holders.dedup();
        assert_eq!(holders.len(), sees, "each once");
    }
    let user = Some("user3".parse().unwrap());
    let list = ListFiles {
        user,
        cursor: Cursor::default(),
    };
    let page = service.list_files(READER, &list).unwrap();
    assert_eq!((page.entries.len(), page.total), (3, 3));
}

/// Shows: at the small tracker of one peer that peer alone publishes; the others find what it has.
#[test]
fn at_the_tracker_of_one_peer_nobody_else_publishes() {
    let mut service = service();
    let owner = publish(&service, 1, vec![file("own.txt", [1; 32], 1)]);
    let other = publish(&service, 2, Vec::new());
    service.set_owner(Some(owner));
    let say = |peer: PeerId, name: &str| {
        let moment = Moment {
            now: *NOW,
            unix_ms: 0,
            office: &OFFICE,
            random: &mut OsRandom::new(),
            resume: None,
            credential_mark: None,
        };
        let files = Files::for_everybody(vec![file(name, [2; 32], 1)]);
        service.respond(moment, &caller(peer), Request::Publish(files))
    };
    assert_eq!(
        say(other, "foreign.txt"),
        Response::Refused(Refusal::TooManyFiles { limit: 0 })
    );
    assert_eq!(say(owner, "more.txt"), Response::Published);
    let [(found, _), _] = both(&service, "txt");
    let mut names: Vec<_> = found.iter().map(|file| file.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["more.txt", "own.txt"]);
}
