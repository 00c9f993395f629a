//! Swarms with an invented clock: who is asked for what, and what becomes of the slow and of liars.

use proptest::prelude::*;

use super::source::{CREDIT, GIVE_UP, LACK, MAX_DEPTH, MAX_LACK, MIN_DEPTH, STALL};
use super::*;
use crate::wire::pieces::PIECE_LEN;

fn layout(pieces: u64) -> Layout {
    Layout::new(pieces << 20).unwrap()
}

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn swarm(pieces: u64, sources: u8, now: Instant) -> Swarm {
    let layout = layout(pieces);
    let mut swarm = Swarm::new(layout, 0, Bitfield::empty(layout));
    for number in 0..sources {
        swarm.add_source(now, peer(number), Bitfield::full(layout));
    }
    swarm
}

fn ask_all(swarm: &mut Swarm, now: Instant, source: u8) -> Vec<PieceIndex> {
    std::iter::from_fn(|| swarm.next_request(now, &peer(source))).collect()
}

#[test]
fn the_work_is_split_and_nothing_is_asked_twice() {
    let now = Instant::now();
    let mut swarm = swarm(100, 2, now);
    let (one, two) = (ask_all(&mut swarm, now, 0), ask_all(&mut swarm, now, 1));
    assert_eq!((one.len(), two.len()), (MIN_DEPTH, MIN_DEPTH));
    assert!(one.iter().all(|piece| !two.contains(piece)));
}

#[test]
fn what_a_lost_source_owed_is_asked_of_the_other() {
    let now = Instant::now();
    let mut swarm = swarm(3, 2, now);
    let owed = ask_all(&mut swarm, now, 0);
    swarm.remove_source(&peer(0));
    for _ in 0..3 {
        let piece = swarm.next_request(now, &peer(1)).unwrap();
        assert_eq!(
            swarm.piece_arrived(now, &peer(1), piece),
            Arrival::New(vec![])
        );
    }
    assert!(swarm.is_complete() && !owed.is_empty());
}

#[test]
fn a_silent_source_never_holds_the_last_piece() {
    let now = Instant::now();
    let mut swarm = swarm(2, 2, now);
    let held = ask_all(&mut swarm, now, 0);
    assert_eq!(held.len(), 2);
    assert_eq!(swarm.next_request(now, &peer(1)), None, "it may be coming");
    let now = now + 3 * STALL;
    let first = swarm
        .next_request(now, &peer(1))
        .expect("an idle source doubles what is owed");
    assert_eq!(swarm.next_request(now, &peer(1)), None, "one at a time");
    assert_eq!(
        swarm.piece_arrived(now, &peer(1), first),
        Arrival::New(vec![peer(0)])
    );
    let second = swarm.next_request(now, &peer(1)).unwrap();
    swarm.piece_arrived(now, &peer(1), second);
    assert!(swarm.is_complete());
    assert_eq!(
        swarm.piece_arrived(now, &peer(0), first),
        Arrival::Duplicate
    );
}

#[test]
fn a_stalled_source_keeps_one_piece_and_recovers() {
    let now = Instant::now();
    let mut swarm = swarm(10, 1, now);
    let owed = ask_all(&mut swarm, now, 0);
    let later = now + STALL;
    swarm.handle_timeout(later);
    assert_eq!(swarm.sources[&peer(0)].owes.len(), 1);
    assert!(ask_all(&mut swarm, later, 0).is_empty());
    swarm.piece_arrived(later, &peer(0), owed[0]);
    assert!(!ask_all(&mut swarm, later, 0).is_empty());
}

#[test]
fn downloaders_that_lack_the_same_starve_until_somebody_has_it() {
    let now = Instant::now();
    let layout = layout(4);
    let mut swarm = Swarm::new(layout, 0, Bitfield::empty(layout));
    swarm.add_source(now, peer(0), Bitfield::empty(layout));
    assert!(ask_all(&mut swarm, now, 0).is_empty() && swarm.is_starved());
    let last = layout.piece(3).unwrap();
    swarm.source_has(&peer(0), [last]);
    assert!(swarm.has_piece(&peer(0), last) && !swarm.has_piece(&peer(1), last));
    assert_eq!(ask_all(&mut swarm, now, 0), [last]);
    assert!(!swarm.is_starved());
}

#[test]
fn a_source_that_sends_nothing_is_given_up() {
    let now = Instant::now();
    let mut swarm = swarm(10, 2, now);
    ask_all(&mut swarm, now, 0);
    assert_eq!(swarm.silent(now + GIVE_UP / 2), []);
    swarm.handle_timeout(now + STALL);
    assert_eq!(
        swarm.silent(now + GIVE_UP),
        [peer(0)],
        "who owes nothing may be silent"
    );
    swarm.note_sign(now + STALL, &peer(0));
    assert_eq!(swarm.silent(now + GIVE_UP), []);
}

/// One whole source, and a crowd around.
fn crowd(pieces: u64, now: Instant) -> Swarm {
    let mut swarm = swarm(pieces, 2, now);
    swarm.add_source(now, peer(9), Bitfield::empty(layout(pieces)));
    swarm
}

#[test]
fn in_a_crowd_a_source_chooses_and_the_rest_is_free_again() {
    let now = Instant::now();
    let mut swarm = crowd(100, now);
    let piece = swarm.next_request(now, &peer(0)).unwrap();
    let others = swarm.candidates(&peer(0), piece, |_| true);
    assert_eq!(others.len() + 1, MAX_CANDIDATES);
    assert!(
        swarm.candidates(&peer(0), piece, |_| true).is_empty(),
        "once"
    );
    assert_eq!(
        swarm.picker.free_count(),
        96,
        "nobody else is asked for them"
    );
    swarm.piece_chosen(&peer(0), piece, others[1]);
    assert_eq!(swarm.picker.free_count(), 99);
    assert!(swarm.owes(&peer(0), others[1]) && !swarm.owes(&peer(0), piece));
    swarm.piece_arrived(now, &peer(0), others[1]);
    assert_eq!(swarm.picker.free_count(), 99);

    let piece = swarm.next_request(now, &peer(0)).unwrap();
    swarm.candidates(&peer(0), piece, |_| true);
    swarm.piece_chosen(&peer(0), piece, piece);
    assert!(swarm.owes(&peer(0), piece) && swarm.picker.free_count() == 98);
}

/// It came from another source while the choice was on its way.
#[test]
fn a_chosen_piece_that_is_here_is_not_owed() {
    let now = Instant::now();
    let mut swarm = crowd(100, now);
    let piece = swarm.next_request(now, &peer(0)).unwrap();
    let others = swarm.candidates(&peer(0), piece, |_| true);
    swarm.piece_arrived(now, &peer(1), others[0]);
    swarm.piece_chosen(&peer(0), piece, others[0]);
    assert!(!swarm.owes(&peer(0), others[0]) && !swarm.owes(&peer(0), piece));
    assert_eq!(swarm.silent(now + GIVE_UP), []);
    assert_eq!(swarm.picker.free_count(), 99);
}

#[test]
fn when_all_are_let_go_of_everything_is_free_and_they_may_come_again() {
    let now = Instant::now();
    let mut swarm = crowd(100, now);
    for piece in ask_all(&mut swarm, now, 0) {
        swarm.candidates(&peer(0), piece, |_| true);
    }
    swarm.remove_sources();
    assert_eq!((swarm.picker.free_count(), swarm.source_count()), (100, 0));
    swarm.add_source(now, peer(9), Bitfield::full(layout(100)));
    assert!(
        swarm.next_request(now, &peer(9)).is_some(),
        "it has more now"
    );
}

#[test]
fn what_waited_for_a_choice_is_free_when_the_source_goes_or_stalls() {
    let now = Instant::now();
    for is_stalled in [false, true] {
        let mut swarm = crowd(100, now);
        for piece in ask_all(&mut swarm, now, 0) {
            swarm.candidates(&peer(0), piece, |_| true);
        }
        assert_eq!(swarm.picker.free_count(), 100 - MIN_DEPTH * MAX_CANDIDATES);
        if is_stalled {
            swarm.handle_timeout(now + STALL);
            assert_eq!(swarm.picker.free_count(), 100 - MAX_CANDIDATES);
        }
        swarm.remove_source(&peer(0));
        assert_eq!(swarm.picker.free_count(), 100);
    }
}

#[test]
fn no_choice_without_a_crowd_without_hashes_or_near_the_end() {
    let now = Instant::now();
    let mut alone = swarm(100, 1, now);
    let piece = alone.next_request(now, &peer(0)).unwrap();
    assert!(alone.candidates(&peer(0), piece, |_| true).is_empty());
    let mut many = crowd(100, now);
    let piece = many.next_request(now, &peer(0)).unwrap();
    assert!(many.candidates(&peer(0), piece, |_| false).is_empty());
    assert_eq!(many.picker.free_count(), 99);
    let mut few = crowd(4, now);
    let piece = few.next_request(now, &peer(0)).unwrap();
    assert_eq!(few.candidates(&peer(0), piece, |_| true).len(), 1);
    let piece = few.next_request(now, &peer(1)).unwrap();
    assert!(few.candidates(&peer(1), piece, |_| true).is_empty());
    assert_eq!(few.picker.free_count(), 1, "others shall have work, too");
}

#[test]
fn who_lacked_a_piece_is_asked_again_when_it_has_it() {
    let now = Instant::now();
    let mut swarm = swarm(1, 1, now);
    let [piece] = ask_all(&mut swarm, now, 0)[..] else {
        panic!("one piece");
    };
    swarm.source_lacks(now, &peer(0), piece);
    assert!(swarm.is_starved() && ask_all(&mut swarm, now, 0).is_empty());
    swarm.source_has(&peer(0), [piece]);
    assert_eq!(ask_all(&mut swarm, now, 0), [piece]);
}

#[test]
fn who_lacked_what_nobody_has_is_tried_again_ever_later() {
    let mut now = Instant::now();
    let mut swarm = swarm(1, 1, now);
    let piece = layout(1).piece(0).unwrap();
    let mut waits = vec![LACK, 2 * LACK, 4 * LACK];
    waits.extend([MAX_LACK; 2]);
    for (number, wait) in waits.into_iter().enumerate() {
        if number == 3 {
            let lacks = &mut swarm.sources.get_mut(&peer(0)).unwrap().lacks;
            lacks.insert(piece, (now, MAX_LACK - LACK));
        }
        assert_eq!(swarm.next_request(now, &peer(0)), Some(piece));
        swarm.source_lacks(now, &peer(0), piece);
        swarm.handle_timeout(now + wait - LACK / 2);
        assert_eq!(swarm.next_request(now, &peer(0)), None, "{wait:?}");
        now += wait;
        swarm.handle_timeout(now);
    }
}

#[test]
fn who_lacked_what_another_has_is_left_alone() {
    let now = Instant::now();
    let mut swarm = swarm(1, 2, now);
    let piece = swarm.next_request(now, &peer(0)).unwrap();
    swarm.source_lacks(now, &peer(0), piece);
    swarm.handle_timeout(now + MAX_LACK);
    assert!(!swarm.has_piece(&peer(0), piece));
    swarm.remove_source(&peer(1));
    swarm.handle_timeout(now + MAX_LACK);
    assert_eq!(swarm.next_request(now, &peer(0)), Some(piece));
}

#[test]
fn one_that_drips_keeps_one_piece_and_is_called_slow() {
    let start = Instant::now();
    let mut swarm = swarm(9, 2, start);
    swarm.remove_source(&peer(1));
    let owed = ask_all(&mut swarm, start, 0);
    assert!(owed.len() > 1 && !swarm.is_slow());
    let mut now = start;
    let mut released = Vec::new();
    while now < start + CREDIT {
        assert!(!swarm.is_slow());
        now += STALL / 2;
        swarm.note_sign(now, &peer(0));
        released.extend(swarm.handle_timeout(now));
    }
    assert_eq!(released.len(), owed.len() - 1);
    assert!(swarm.is_slow() && ask_all(&mut swarm, now, 0).is_empty());
    swarm.add_source(now, peer(1), Bitfield::full(layout(9)));
    assert!(!ask_all(&mut swarm, now, 1).is_empty());
    assert!(!swarm.is_slow(), "somebody else may be faster");
    swarm.remove_source(&peer(1));
    swarm.piece_arrived(now, &peer(0), owed[0]);
    assert!(ask_all(&mut swarm, now, 0).len() > 1 && !swarm.is_slow());
}

#[test]
fn who_has_nothing_that_is_missing_makes_room() {
    let now = Instant::now();
    let layout = layout(9);
    let mut swarm = swarm(9, 1, now);
    swarm.add_source(now + STALL, peer(1), Bitfield::empty(layout));
    swarm.add_source(now, peer(2), Bitfield::empty(layout));
    ask_all(&mut swarm, now, 0);
    assert_eq!(swarm.useless(now + CREDIT / 2), None);
    assert_eq!(swarm.useless(now + 2 * CREDIT), Some(peer(2)));
    swarm.remove_source(&peer(2));
    assert_eq!(swarm.useless(now + CREDIT), None);
    assert_eq!(swarm.useless(now + 2 * CREDIT), Some(peer(1)));
}

#[test]
fn two_that_drip_do_not_keep_the_last_piece_to_themselves() {
    let now = Instant::now();
    let mut swarm = swarm(1, 3, now);
    let last = swarm.next_request(now, &peer(0)).unwrap();
    let now = now + 3 * STALL;
    assert_eq!(swarm.next_request(now, &peer(1)), Some(last));
    assert_eq!(swarm.next_request(now, &peer(2)), None, "two at a time");
    let later = now + CREDIT;
    swarm.note_sign(later, &peer(0));
    swarm.note_sign(later, &peer(1));
    assert_eq!(swarm.next_request(later, &peer(2)), Some(last));
}

#[test]
fn one_that_was_outrun_leaves_the_second_place_to_others() {
    let start = Instant::now();
    let mut swarm = swarm(2, 3, start);
    let owed = [0, 1].map(|source| swarm.next_request(start, &peer(source)).unwrap());
    let now = start + 3 * STALL;
    let first = swarm.next_request(now, &peer(2)).unwrap();
    let (outrun, last) = match first == owed[0] {
        true => (peer(0), owed[1]),
        false => (peer(1), owed[0]),
    };
    swarm.piece_arrived(now, &peer(2), first);
    assert_eq!(swarm.next_request(now, &outrun), None);
    assert_eq!(swarm.next_request(now, &peer(2)), Some(last));
    swarm.remove_source(&peer(2));
    let later = start + CREDIT;
    let again = swarm.next_request(later, &outrun);
    assert_eq!(again, Some(last), "nobody else delivers");
}

#[test]
fn one_that_was_slow_before_still_helps_out() {
    let now = Instant::now();
    let mut swarm = swarm(2, 2, now);
    let slow = swarm.next_request(now, &peer(0)).unwrap();
    let held = swarm.next_request(now, &peer(1)).unwrap();
    let later = now + 10 * CREDIT;
    swarm.piece_arrived(later, &peer(0), slow);
    swarm.note_sign(later, &peer(1));
    assert_eq!(swarm.next_request(later, &peer(0)), Some(held));
}

#[test]
fn what_comes_in_time_is_not_asked_of_a_second() {
    let start = Instant::now();
    let mut swarm = swarm(10, 2, start);
    for turn in 0..4 {
        let now = start + turn * STALL / 4;
        for source in 0..2 {
            let piece = swarm.next_request(now, &peer(source)).unwrap();
            swarm.piece_arrived(now + STALL / 4, &peer(source), piece);
        }
    }
    let now = start + STALL;
    let (one, two) = (ask_all(&mut swarm, now, 0), ask_all(&mut swarm, now, 1));
    assert_eq!((one.len(), two.len()), (2, 0));
    assert!(ask_all(&mut swarm, now + STALL / 8, 1).is_empty());
}

#[test]
fn a_short_piece_says_nothing_about_speed() {
    let now = Instant::now();
    let layout = Layout::new(PIECE_LEN + 1).unwrap();
    let mut swarm = Swarm::new(layout, 1, Bitfield::empty(layout));
    swarm.add_source(now, peer(0), Bitfield::full(layout));
    swarm.add_source(now, peer(1), Bitfield::full(layout));
    let short = swarm.next_request(now, &peer(0)).unwrap();
    let held = swarm.next_request(now, &peer(1)).unwrap();
    assert_eq!(layout.piece_len(short), 1);
    let later = now + 4 * STALL;
    swarm.piece_arrived(later, &peer(0), short);
    assert_eq!(swarm.next_request(later, &peer(0)), Some(held));
}

#[test]
fn a_liar_is_dropped_and_never_asked_again() {
    let now = Instant::now();
    let mut swarm = swarm(4, 2, now);
    let owed = ask_all(&mut swarm, now, 0);
    swarm.piece_was_wrong(&peer(0));
    assert!(swarm.is_liar(&peer(0)) && !swarm.has_source(&peer(0)));
    swarm.add_source(now, peer(0), Bitfield::full(layout(4)));
    assert_eq!(swarm.next_request(now, &peer(0)), None);
    let mut asked = Vec::new();
    while let Some(piece) = swarm.next_request(now, &peer(1)) {
        swarm.piece_arrived(now, &peer(1), piece);
        asked.push(piece);
    }
    assert!(asked.contains(&owed[0]), "what it owed is free again");
    assert!(swarm.is_complete() && !swarm.is_starved());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Sources come, go, stall, lie and deliver in any order; in the end an honest one finishes it.
    #[test]
    fn whatever_happens_one_honest_source_ends_it(
        pieces in 1_u64..40, steps in prop::collection::vec((0_u8..6, 0_u8..5), 0..200),
    ) {
        let layout = layout(pieces);
        let mut now = Instant::now();
        let mut swarm = Swarm::new(layout, 7, Bitfield::empty(layout));
        swarm.add_source(now, peer(6), Bitfield::empty(layout));
        let mut arrived = 0;
        for (source, action) in steps {
            now += Duration::from_millis(300);
            match action {
                0 => swarm.add_source(now, peer(source), Bitfield::full(layout)),
                1 => swarm.remove_source(&peer(source)),
                2 => swarm.piece_was_wrong(&peer(source)),
                3 => drop(swarm.handle_timeout(now)),
                _ => if let Some(mut piece) = swarm.next_request(now, &peer(source))
                    && {
                        let others = swarm.candidates(&peer(source), piece, |other| other.get() % 7 != 0);
                        if let Some(other) = others.last().filter(|other| other.get() % 3 > 0) {
                            swarm.piece_chosen(&peer(source), piece, *other);
                            piece = *other;
                        }
                        piece.get() % 2 == 0
                    } {
                        arrived += u32::from(swarm.piece_arrived(now, &peer(source), piece) != Arrival::Duplicate);
                    },
            }
            for source in swarm.sources.values() {
                prop_assert!(source.owes.len() <= MAX_DEPTH);
            }
        }
        for source in 0..7 {
            swarm.remove_source(&peer(source));
        }
        swarm.add_source(now, peer(99), Bitfield::full(layout));
        while let Some(piece) = swarm.next_request(now, &peer(99)) {
            prop_assert_ne!(swarm.piece_arrived(now, &peer(99), piece), Arrival::Duplicate);
            arrived += 1;
        }
        prop_assert!(swarm.is_complete());
        prop_assert_eq!(arrived, layout.count());
        prop_assert!(swarm.asked.is_empty());
    }
}
