//! The registry, driven by hand.

use std::time::Duration;

use super::*;
use crate::wire::control::PublicationKind;
use crate::wire::id::SessionId;

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn arrival(number: u8, user: &str, session: u8) -> Arrival {
    Arrival {
        peer: peer(number),
        user: user.parse().unwrap(),
        session: SessionId::from_bytes([session; 7]),
        ip: "10.0.0.1".parse().unwrap(),
        port: Some(8001),
    }
}

fn file(name: &str, content: u8) -> Publication {
    Publication {
        name: name.parse().unwrap(),
        content: ContentId([content; 32]),
        len: 5,
        kind: PublicationKind::File,
    }
}

fn open(files: Vec<Publication>) -> Files {
    Files::for_everybody(files)
}

fn restricted(files: Vec<Publication>, to: &[u8]) -> Files {
    Files {
        files,
        audience: Audience::of(to.iter().copied().map(peer)).unwrap(),
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new(10);
    registry
        .log_in(Instant::now(), arrival(1, "ana", 1))
        .unwrap();
    registry
        .log_in(Instant::now(), arrival(2, "bob", 2))
        .unwrap();
    registry
}

fn found(registry: &Registry, term: &str) -> Vec<(String, u32)> {
    let hits = registry.search(peer(9), term, Place::START);
    hits.map(Result::unwrap)
        .map(|(_, hit)| (hit.file.name.as_str().to_owned(), hit.holders))
        .collect()
}

#[test]
fn same_name_and_content_is_one_hit_everything_else_is_apart() {
    let mut registry = registry();
    registry
        .publish(
            peer(1),
            open(vec![
                file("talk.mp4", 1),
                file("talk.mp4", 2),
                file("copy.mp4", 1),
            ]),
        )
        .unwrap();
    registry
        .publish(
            peer(2),
            open(vec![file("talk.mp4", 1), file("talk.mp4", 1)]),
        )
        .unwrap();
    assert_eq!(
        found(&registry, "talk"),
        [("talk.mp4".into(), 2), ("talk.mp4".into(), 1)]
    );
    assert_eq!(
        registry.holders(peer(9), &ContentId([1; 32]), None).count(),
        2
    );
    registry.unpublish(peer(1), &[file("copy.mp4", 1)]);
    assert_eq!(
        registry.holders(peer(9), &ContentId([1; 32]), None).count(),
        2,
        "it has it under another name"
    );
    registry.unpublish(peer(1), &[file("talk.mp4", 1)]);
    assert_eq!(
        registry.holders(peer(9), &ContentId([1; 32]), None).count(),
        1
    );
}

#[test]
fn nobody_can_take_out_what_another_published() {
    let mut registry = registry();
    registry
        .publish(peer(1), open(vec![file("talk.mp4", 1)]))
        .unwrap();
    registry.unpublish(peer(2), &[file("talk.mp4", 1)]);
    assert_eq!(found(&registry, "talk"), [("talk.mp4".into(), 1)]);
}

#[test]
fn a_silent_peer_is_hidden_and_comes_back_with_everything() {
    let mut registry = registry();
    registry
        .publish(peer(1), open(vec![file("talk.mp4", 1)]))
        .unwrap();
    registry.hide(peer(1));
    assert!(found(&registry, "talk").is_empty());
    assert_eq!(registry.peer_count(), 1);
    assert_eq!(
        registry.holders(peer(9), &ContentId([1; 32]), None).count(),
        0
    );
    registry
        .come_back(Instant::now(), arrival(1, "ana", 1))
        .unwrap();
    assert_eq!(found(&registry, "talk"), [("talk.mp4".into(), 1)]);
}

#[test]
fn a_new_login_begins_without_files_a_repeated_one_changes_nothing() {
    let mut registry = registry();
    registry
        .publish(peer(1), open(vec![file("talk.mp4", 1)]))
        .unwrap();
    registry
        .log_in(Instant::now(), arrival(1, "ana", 1))
        .unwrap();
    assert_eq!(registry.record(&peer(1)).unwrap().file_count(), 1);
    registry
        .log_in(Instant::now(), arrival(1, "ana", 9))
        .unwrap();
    assert_eq!(registry.record(&peer(1)).unwrap().file_count(), 0);
    assert_eq!(registry.record(&peer(1)).unwrap().digest(), 0);
    assert!(found(&registry, "talk").is_empty() && registry.catalog.is_empty());
}

#[test]
fn names_belong_to_whoever_came_first() {
    let mut registry = registry();
    let later = Instant::now() + Duration::from_secs(60);
    let refused = registry.log_in(later, arrival(3, "ANA", 3));
    assert!(
        matches!(
            refused,
            Err(Refusal::NameInUse {
                since_s: 59..=61,
                ..
            })
        ),
        "{refused:?}"
    );
    registry.leave(peer(1));
    assert_eq!(
        registry.log_in(later, arrival(3, "ana", 3)),
        Err(Refusal::NameReserved)
    );
    assert_eq!(registry.log_in(later, arrival(1, "ana", 3)), Ok(()));
}

#[test]
fn a_name_that_was_taken_meanwhile_is_known_before_the_answer() {
    let mut registry = registry();
    let name = |text: &str| text.parse().unwrap();
    assert!(
        registry.may_return(&peer(1), &name("ana")) && registry.may_return(&peer(3), &name("eve"))
    );
    assert!(!registry.may_return(&peer(3), &name("ANA")), "in use");
    registry.leave(peer(1));
    assert!(!registry.may_return(&peer(3), &name("ana")), "reserved");
}

#[test]
fn many_files_of_one_name_are_walked_once_each_also_while_some_go() {
    let mut registry = registry();
    let files: Vec<_> = (0..=255).map(|content| file("same.txt", content)).collect();
    registry.publish(peer(1), open(files.clone())).unwrap();
    let places = registry.search(peer(9), "same", Place::START);
    let places: Vec<_> = places.map(Result::unwrap).collect();
    assert_eq!(places.len(), 256);
    let (place, next) = &places[100];
    registry.unpublish(peer(1), &files[..50]);
    let (_, hit) = registry
        .search(peer(9), "same", *place)
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(hit, *next, "a place stays what it was");
}

#[test]
fn limits_hold() {
    let mut registry = registry();
    for number in 3..=10 {
        registry
            .log_in(
                Instant::now(),
                arrival(number, &format!("user{number}"), number),
            )
            .unwrap();
    }
    assert_eq!(
        registry.log_in(Instant::now(), arrival(11, "late", 11)),
        Err(Refusal::Full)
    );
    assert_eq!(
        registry.log_in(Instant::now(), arrival(10, "user10", 12)),
        Ok(()),
        "already counted"
    );
    let many = (0..=MAX_FILES_PER_PEER)
        .map(|n| file(&format!("f{n}"), 1))
        .collect();
    assert!(matches!(
        registry.publish(peer(1), open(many)),
        Err(Refusal::TooManyFiles { .. })
    ));
    assert_eq!(
        registry.record(&peer(1)).unwrap().file_count() as usize,
        MAX_FILES_PER_PEER
    );
}

#[test]
fn leaving_leaves_nothing_behind() {
    let mut registry = registry();
    registry
        .publish(
            peer(1),
            open((0..200).map(|n| file(&format!("f{n}"), n)).collect()),
        )
        .unwrap();
    registry.leave(peer(1)).unwrap();
    assert!(registry.catalog.is_empty() && registry.peer_count() == 1);
    assert!(registry.leave(peer(1)).is_none());
}

/// Names of what `reader` finds, each with who has it.
fn seen_by(registry: &Registry, reader: u8, term: &str) -> Vec<(String, bool, u32)> {
    let hits = registry.search(peer(reader), term, Place::START);
    let hits = hits.map(|found| found.unwrap().1);
    hits.map(|hit| (hit.file.name.to_string(), hit.is_restricted, hit.holders))
        .collect()
}

#[test]
fn what_is_for_chosen_people_is_there_for_them_and_its_owner_only() {
    let mut registry = registry();
    let content = ContentId([1; 32]);
    let talk = file("Talk.mp4", 1);
    registry
        .publish(peer(1), restricted(vec![talk.clone()], &[3]))
        .unwrap();
    let ana = "ana".parse().unwrap();
    for (reader, sees) in [(1, 1), (2, 0), (3, 1), (9, 0)] {
        assert_eq!(seen_by(&registry, reader, "tAlk").len(), sees, "{reader}");
        let reader = peer(reader);
        assert_eq!(registry.files(reader, Place::START).count(), sees);
        assert_eq!(registry.holders(reader, &content, None).count(), sees);
        assert_eq!(registry.files_of(reader, &ana, None).unwrap().count(), sees);
        assert_eq!(registry.file_count_of(reader, &ana) as usize, sees);
        assert_eq!(registry.count(reader, "talk", 10).names, sees);
        assert_eq!(registry.name_count_for(reader), sees);
    }
    assert_eq!(registry.record(&peer(1)).unwrap().file_count(), 1);
    assert_eq!(
        seen_by(&registry, 3, "talk"),
        [("Talk.mp4".into(), true, 1)]
    );
    registry.hide(peer(1));
    assert!(seen_by(&registry, 3, "talk").is_empty());
    assert_eq!(registry.holders(peer(3), &content, None).count(), 0);
    registry.leave(peer(1)).unwrap();
    assert!(registry.parcels.is_empty() && registry.file_count() == 0);
}

#[test]
fn whom_a_file_is_for_may_change_and_each_owner_says_it_for_itself() {
    let mut registry = registry();
    let talk = || vec![file("talk.mp4", 1)];
    let digest = |registry: &Registry| registry.record(&peer(1)).unwrap().digest();
    registry.publish(peer(1), open(talk())).unwrap();
    let for_all = digest(&registry);
    registry.publish(peer(1), restricted(talk(), &[3])).unwrap();
    assert!(seen_by(&registry, 2, "talk").is_empty() && digest(&registry) != for_all);
    registry.publish(peer(1), restricted(talk(), &[2])).unwrap();
    assert!(seen_by(&registry, 3, "talk").is_empty());
    assert_eq!(seen_by(&registry, 2, "talk").len(), 1);
    // Another has the same for everybody, under this name and under another one.
    registry.publish(peer(2), open(talk())).unwrap();
    registry
        .publish(peer(2), open(vec![file("other", 1)]))
        .unwrap();
    assert_eq!(
        seen_by(&registry, 9, "talk"),
        [("talk.mp4".into(), false, 1)]
    );
    let holders = |reader| {
        registry
            .holders(peer(reader), &ContentId([1; 32]), None)
            .count()
    };
    assert_eq!([holders(9), holders(2)], [1, 2]);
    registry.publish(peer(1), open(talk())).unwrap();
    assert_eq!(digest(&registry), for_all);
    assert_eq!(
        seen_by(&registry, 9, "talk"),
        [("talk.mp4".into(), false, 2)]
    );
    registry.publish(peer(1), restricted(talk(), &[2])).unwrap();
    registry.unpublish(peer(1), &talk());
    assert!(registry.parcels.is_empty() && digest(&registry) == 0);
}

#[test]
fn a_file_for_several_people_counts_once_for_each() {
    let mut registry = registry();
    let mut publish = |first: u8| {
        let many = (0..MAX_PARCELS).map(|n| file(&format!("{first} {n}"), 1));
        registry.publish(
            peer(1),
            restricted(many.collect(), &[first, first + 1, first + 2]),
        )
    };
    let refused = (3..=240).step_by(3).find_map(|first| publish(first).err());
    let limit = u32::try_from(MAX_FILES_PER_PEER).unwrap();
    assert_eq!(refused, Some(Refusal::TooManyFiles { limit }));
    let count = registry.record(&peer(1)).unwrap().file_count() as usize;
    assert_eq!(count, MAX_FILES_PER_PEER / 3);
}

#[test]
fn nobody_is_sent_more_than_a_bounded_number_of_files_by_one_peer() {
    let mut registry = registry();
    let many = |owner: &str| {
        (0..=MAX_PARCELS)
            .map(|n| file(&format!("{owner} {n}"), 1))
            .collect()
    };
    let limit = u32::try_from(MAX_PARCELS).unwrap();
    let full = Err(Refusal::TooManyFiles { limit });
    let sent = |registry: &Registry, user: &str| {
        registry.file_count_of(peer(3), &user.parse().unwrap()) as usize
    };
    assert_eq!(
        registry.publish(peer(1), restricted(many("ana"), &[3])),
        full
    );
    assert_eq!(sent(&registry, "ana"), MAX_PARCELS);
    let one = || vec![file("one", 1)];
    assert_eq!(registry.publish(peer(1), restricted(one(), &[2, 3])), full);
    assert_eq!(registry.publish(peer(1), restricted(one(), &[2])), Ok(()));
    // Others may, it may send others, and again to the same when there is room.
    assert_eq!(registry.publish(peer(2), restricted(one(), &[3])), Ok(()));
    assert_eq!(registry.name_count_for(peer(3)), MAX_PARCELS + 1);
    registry.unpublish(peer(1), &[file("ana 0", 1)]);
    assert_eq!(sent(&registry, "ana"), MAX_PARCELS - 1);
    assert_eq!(registry.publish(peer(1), restricted(one(), &[3])), Ok(()));
    for owner in [1, 2] {
        registry.leave(peer(owner)).unwrap();
    }
    assert!(registry.parcels.is_empty() && registry.name_count_for(peer(3)) == 0);
}
