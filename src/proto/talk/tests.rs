//! Talks with an invented clock: who is let in, what is lost, and what a flood does.

mod doubt;
mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;

use self::world::{World, key, name, text};
use super::*;
use crate::wire::control::{Publication, PublicationKind};
use crate::wire::id::ContentId;
use crate::wire::talk::{Offer, OfferAnswer, OfferState, Receipt, Whose};

fn start() -> Instant {
    Instant::now()
}

const S: Duration = Duration::from_secs(1);

fn offer(file: &str) -> Offer {
    let publication = Publication {
        name: file.parse().unwrap(),
        content: ContentId([7; 32]),
        len: 5,
        kind: PublicationKind::File,
    };
    Offer {
        publication,
        files: 1,
        size: 5,
    }
}

/// Two who talk.
fn talking() -> World {
    let mut world = World::new(2);
    world.call(0, 1);
    world.run();
    world.answer(1, Verdict::Yes);
    world.run();
    assert!(world.talks(0, 1));
    world
}

#[test]
fn whoever_asks_waits_for_a_yes_and_then_both_say_what_they_like() {
    let mut world = World::new(2);
    world.call(0, 1);
    world.run();
    assert!(!world.talks(0, 1) && world.say(0, 1, "too early").is_none());
    let asked = world.sides[1].machine.questions();
    assert_eq!((asked[0].user.as_str(), asked.len()), ("u0", 1));
    assert_eq!(world.sides[1].asked(), 1);
    world.answer(1, Verdict::Yes);
    world.run();
    assert!(world.talks(0, 1));
    let said = world.say(0, 1, "hi").unwrap();
    world.say(1, 0, "hello").unwrap();
    world.run();
    assert_eq!(world.sides[1].heard, [(0, "hi".to_owned())]);
    assert_eq!(world.sides[0].heard, [(1, "hello".to_owned())]);
    assert_eq!(world.sides[0].delivery(said), Some(Delivery::Delivered));
    assert!(world.sides[0].machine.hang_up(world.now, &key(1)));
    world.run();
    let ended = |side: &world::Side| {
        side.events.iter().find_map(|event| match event {
            Event::Ended { end, .. } => Some(end.clone()),
            _ => None,
        })
    };
    assert_eq!(ended(&world.sides[0]), Some(End::Here));
    assert_eq!(ended(&world.sides[1]), Some(End::There));
    world.assert_idle();
}

#[test]
fn two_who_call_each_other_at_once_end_with_one_talk_no_question_and_all_that_was_said() {
    for seed in 0..300 {
        let mut world = World::new(2);
        world.shuffle(seed);
        // Each says something as soon as he may.
        world.greets = true;
        world.call(0, 1);
        world.call(1, 0);
        world.run();
        assert!(world.talks(0, 1), "seed {seed}");
        for side in 0..2 {
            let other = 1 - side;
            assert_eq!(world.sides[side].asked(), 0, "seed {seed}");
            let began = world.sides[side].count(|event| matches!(event, Event::Began { .. }));
            assert_eq!(began, 1, "seed {seed}");
            let greeting = (other, format!("hello from u{other}"));
            assert_eq!(world.sides[side].heard, [greeting], "seed {seed}");
        }
        assert_eq!(world.open_wires(), 1, "seed {seed}");
    }
}

#[test]
fn whoever_cannot_be_reached_is_talked_to_over_the_connection_that_he_dialled() {
    // The smaller key's own connection would stay, but there is none.
    for seed in 0..50 {
        let mut world = World::new(2);
        world.shuffle(seed);
        world.unreachable.insert(1);
        world.call(0, 1);
        world.call(1, 0);
        world.run();
        assert!(world.talks(0, 1), "seed {seed}");
        assert_eq!(world.sides[0].asked(), 0, "seed {seed}");
    }
    // Whoever was called in vain may call back for a while.
    for (later, asked) in [(59, 0), (61, 1)] {
        let mut world = World::new(2);
        world.unreachable.insert(1);
        world.call(0, 1);
        world.pass(later * S);
        world.call(1, 0);
        world.run();
        assert_eq!(world.sides[0].asked(), asked, "after {later} s");
    }
}

#[test]
fn a_call_to_somebody_who_waits_for_our_answer_is_the_answer() {
    let mut world = World::new(2);
    world.call(0, 1);
    world.run();
    assert_eq!(world.sides[1].asked(), 1);
    world.call(1, 0);
    world.run();
    assert!(world.talks(0, 1));
    assert!(world.sides[1].machine.questions().is_empty());
    let unasked = world.sides[1].count(|event| matches!(event, Event::Unasked(_)));
    assert_eq!(unasked, 1, "the screen asks no longer");
}

/// A call with an offer, a yes, messages both ways, a goodbye; the connection is cut after so many frames.
#[test]
fn a_connection_may_be_lost_at_any_step_and_every_message_has_one_honest_end() {
    for seed in 0..4 {
        for cut_after in 0..40 {
            let mut world = World::new(2);
            world.shuffle(seed);
            world.cut_after = Some(cut_after);
            world.offer(0, 1, offer("a.txt"));
            world.run();
            world.answer(1, Verdict::Yes);
            world.run();
            let mut said = Vec::new();
            for number in 0..4 {
                let (from, to) = (number % 2, 1 - number % 2);
                if let Some(place) = world.say(from, to, &format!("{number}")) {
                    said.push((from, to, format!("{number}"), place));
                }
                if number == 1 {
                    world.run();
                }
            }
            world.run();
            world.sides[0].machine.hang_up(world.now, &key(1));
            world.run();
            for (from, to, text, place) in said {
                let outcomes = world.sides[from].deliveries(place);
                assert_eq!(outcomes.len(), 1, "cut after {cut_after}: {text}");
                let heard = world.sides[to].heard.iter();
                let heard = heard
                    .filter(|heard| **heard == (from, text.clone()))
                    .count();
                match outcomes[0] {
                    Delivery::Delivered => assert_eq!(heard, 1, "cut after {cut_after}"),
                    Delivery::Unknown => assert!(heard <= 1, "cut after {cut_after}"),
                    other => panic!("cut after {cut_after}: {other:?}"),
                }
            }
            // Whatever was cut: nothing is left behind once all clocks have run out.
            world.pass(700 * S);
            world.assert_idle();
        }
    }
}

#[test]
fn row_75_a_thousand_requests_are_one_question_at_a_time_and_the_rest_is_told_to_come_later() {
    let mut world = World::new(1001);
    for asker in 1..=1000 {
        world.call(asker, 0);
        world.pass(S / 50);
        let machine = &world.sides[0].machine;
        assert!(machine.lines.len() <= MAX_LINES && machine.questions().len() <= 64);
    }
    assert_eq!(world.sides[0].asked(), 1, "one at a time");
    let questions = world.sides[0].machine.questions();
    assert!(questions.len() > 30, "{}", questions.len());
    assert_eq!(questions[0].more, questions.len() - 1);
    let busy = |event: &Event| {
        let busy = CallEnd::Refused(Answer::Busy);
        matches!(event, Event::CallFailed { why, .. } if *why == busy)
    };
    let refused = world
        .sides
        .iter()
        .map(|side| side.count(busy))
        .sum::<usize>();
    assert!(refused > 500, "{refused}");
    world.answer(0, Verdict::Yes);
    world.run();
    assert_eq!(world.sides[0].asked(), 2, "the next one");
}

#[test]
fn row_75_whoever_was_denied_is_answered_no_in_silence_until_the_time_is_over() {
    let mut world = World::new(2);
    world.call(0, 1);
    world.run();
    world.answer(1, Verdict::No);
    world.run();
    for _ in 0..100 {
        world.call(0, 1);
        world.pass(2 * S);
    }
    assert_eq!(world.sides[1].asked(), 1);
    let no = CallEnd::Refused(Answer::No);
    let denied = |event: &Event| matches!(event, Event::CallFailed { why, .. } if *why == no);
    assert_eq!(world.sides[0].count(denied), 101);
    world.pass(300 * S);
    world.call(0, 1);
    world.run();
    assert_eq!(world.sides[1].asked(), 2);
    // Whom we call ourselves we do not deny.
    world.answer(1, Verdict::No);
    world.run();
    world.call(1, 0);
    world.run();
    world.answer(0, Verdict::Yes);
    world.run();
    assert!(world.talks(0, 1));
}

#[test]
fn row_77_a_hundred_thousand_messages_are_taken_at_their_rate_and_one_goodbye_ends_them() {
    let mut world = talking();
    let link = world.link(1);
    let start = world.now;
    let (mut shown, mut too_fast) = (0, 0);
    for number in 1..=100_000 {
        let frame = Frame::Text {
            number,
            to_all: false,
            text: text("flood"),
        };
        let machine = &mut world.sides[1].machine;
        let pause = machine.handle_frame(world.now, link, frame);
        while let Some(event) = machine.poll_event() {
            let Event::Said { number, .. } = event else {
                panic!("{event:?}")
            };
            machine.handle_shown(link, number, true);
        }
        while let Some(transmit) = machine.poll_transmit() {
            match transmit {
                Transmit::Send(_, Frame::Received { receipt, .. }) => match receipt {
                    Receipt::Shown => shown += 1,
                    Receipt::TooFast { wait_ms } => {
                        assert!(wait_ms > 0 && !pause.is_zero());
                        too_fast += 1;
                    }
                    Receipt::NotShown => panic!("it was"),
                },
                other => panic!("{other:?}"),
            }
        }
        // The driver reads nothing for so long.
        world.now += pause;
    }
    assert_eq!(shown + too_fast, 100_000);
    let passed = (world.now - start).as_secs();
    assert!(shown <= 20 + 5 * (passed + 1), "{shown} in {passed} s");
    assert!(passed > 5000, "{passed} s");
    assert!(world.sides[1].machine.hang_up(world.now, &key(0)));
    let transmit = world.sides[1].machine.poll_transmit();
    assert_eq!(transmit, Some(Transmit::Finish(link)));
}

#[test]
fn a_sender_hears_what_became_of_each_message_and_no_more_are_on_their_way_than_may_be() {
    let mut world = talking();
    world.sides[1].shows = false;
    let said = world.say(0, 1, "nobody sees it").unwrap();
    world.run();
    assert_eq!(world.sides[0].delivery(said), Some(Delivery::NotShown));
    world.sides[1].shows = true;
    let places: Vec<_> = (0..30).map(|_| world.say(0, 1, "x").unwrap()).collect();
    world.run();
    let outcomes = places.iter().map(|place| world.sides[0].delivery(*place));
    let fast = outcomes.filter(|outcome| matches!(outcome, Some(Delivery::TooFast(_))));
    assert_eq!(fast.count(), 11, "20 at once, one of which was not shown");
    // Nobody answers: the rest waits for nobody.
    world.is_stalled = true;
    let places: Vec<_> = std::iter::from_fn(|| world.say(0, 1, "y")).collect();
    assert_eq!(places.len(), 64);
    world.pass(31 * S);
    for place in places {
        assert_eq!(world.sides[0].deliveries(place), [Delivery::Unknown]);
    }
}

#[test]
fn a_message_that_comes_twice_is_shown_once_and_answered_twice() {
    let mut world = talking();
    let link = world.link(1);
    for _ in 0..2 {
        let frame = Frame::Text {
            number: 1,
            to_all: true,
            text: text("once"),
        };
        let _ = world.sides[1].machine.handle_frame(world.now, link, frame);
        world.run();
    }
    assert_eq!(world.sides[1].heard.len(), 1);
    let shown = Frame::Received {
        number: 1,
        receipt: Receipt::Shown,
    };
    let sent = world.sent.iter().filter(|frame| **frame == shown);
    assert_eq!(sent.count(), 2);
}

#[test]
fn who_is_let_in_depends_on_who_it_is_and_on_what_the_user_wants() {
    use Regard::{Blocked, Met, Trusted, Unknown};
    let other = Regard::OtherKey { known: key(9) };
    #[derive(Debug, PartialEq)]
    enum Then {
        In,
        Asked,
        Told(Answer),
    }
    use Then::{Asked, In, Told};
    let closed = || Told(Answer::NotAccepting);
    for (accept, regard, then) in [
        (Accept::Ask, Unknown, Asked),
        (Accept::Ask, Met, Asked),
        (Accept::Ask, Trusted, In),
        (Accept::Trusted, Unknown, closed()),
        (Accept::Trusted, Met, closed()),
        (Accept::Trusted, Trusted, In),
        (Accept::All, Unknown, In),
        (Accept::All, Met, In),
        (Accept::None, Unknown, closed()),
        (Accept::None, Trusted, closed()),
        (Accept::None, other, closed()),
        (Accept::Ask, other, Told(Answer::OtherKey)),
        (Accept::All, other, Told(Answer::OtherKey)),
        (Accept::Trusted, other, Told(Answer::OtherKey)),
        (Accept::All, Blocked, Told(Answer::No)),
        (Accept::Ask, Blocked, Told(Answer::No)),
    ] {
        let mut world = World::new(2);
        world.sides[1].machine.set_accept(accept);
        world.regard(1, 0, regard);
        world.call(0, 1);
        world.run();
        let refused = world.sides[0].events.iter().find_map(|event| match event {
            Event::CallFailed {
                why: CallEnd::Refused(answer),
                ..
            } => Some(*answer),
            _ => None,
        });
        let came = match refused {
            Some(answer) => Told(answer),
            None if world.talks(0, 1) => In,
            None => Asked,
        };
        assert_eq!(came, then, "{accept:?} {regard:?}");
        let is_asked = world.sides[1].asked() > 0;
        assert_eq!(is_asked, then == Asked, "{accept:?} {regard:?}");
    }
}

#[test]
fn a_known_name_with_another_key_is_neither_let_in_nor_called_and_told_once() {
    let mut world = World::new(2);
    world.regard(1, 0, Regard::OtherKey { known: key(9) });
    for _ in 0..5 {
        world.call(0, 1);
        world.pass(3 * S);
    }
    let refused = world.sides[1].machine.call(world.now, &name(0), key(0));
    assert_eq!(refused, Err(TalkRefusal::OtherKey { known: key(9) }));
    let offered = world.sides[1]
        .machine
        .offer(world.now, &name(0), key(0), offer("x"));
    assert_eq!(offered, Err(TalkRefusal::OtherKey { known: key(9) }));
    world.run();
    let told: Vec<_> = world.sides[1].events.iter().collect();
    let (known, found) = (key(9), key(0));
    let user = name(0);
    assert_eq!(told, [&Event::OtherKey { user, known, found }]);
    // Until somebody trusts it.
    world.regard(1, 0, Regard::Trusted);
    world.call(0, 1);
    world.run();
    assert!(world.talks(0, 1));
}

#[test]
fn a_yes_to_a_name_that_was_given_to_another_key_meanwhile_is_a_no() {
    let mut world = World::new(2);
    world.call(0, 1);
    world.run();
    world.regard(1, 0, Regard::OtherKey { known: key(9) });
    world.answer(1, Verdict::Yes);
    world.run();
    assert!(!world.talks(0, 1));
    world.assert_idle();
}

#[test]
fn whoever_is_blocked_or_replaced_in_the_middle_of_a_talk_is_heard_no_longer() {
    for regard in [Regard::Blocked, Regard::OtherKey { known: key(9) }] {
        let mut world = talking();
        world.regard(1, 0, regard);
        assert!(world.say(1, 0, "no").is_none());
        world.say(0, 1, "still there?").unwrap();
        world.run();
        assert!(world.sides[1].heard.is_empty(), "{regard:?}");
        world.assert_idle();
    }
}

#[test]
fn a_call_that_is_given_up_asks_nobody_any_longer_unless_an_offer_waits_for_it() {
    let mut world = World::new(2);
    world.call(0, 1);
    world.run();
    world.sides[0].machine.give_up(world.now, &key(1));
    world.run();
    let unasked = world.sides[1].count(|event| matches!(event, Event::Unasked(_)));
    assert_eq!(unasked, 1);
    world.assert_idle();
    world.offer(0, 1, offer("a"));
    world.call(0, 1);
    world.run();
    world.sides[0].machine.give_up(world.now, &key(1));
    world.run();
    assert_eq!(world.sides[1].machine.questions().len(), 1);
}

#[test]
fn a_false_name_is_refused_and_told_once() {
    let mut world = World::new(2);
    world.checks = Some(Checked::WrongName);
    for _ in 0..3 {
        world.call(0, 1);
        world.pass(3 * S);
    }
    let (user, key_of_liar) = (name(0), key(0));
    let told = Event::WrongName {
        user,
        key: key_of_liar,
    };
    assert_eq!(world.sides[1].events, [told]);
}

#[test]
fn a_talk_that_is_dead_over_there_is_replaced_without_a_question_and_a_living_one_stays() {
    let mut world = talking();
    // u0 has lost it all, and u1 was not told.
    world.restart(0);
    world.call(0, 1);
    world.run();
    assert!(!world.talks(0, 1));
    world.pass(6 * S);
    assert!(world.talks(0, 1));
    assert_eq!(world.sides[1].asked(), 1, "the first time");
    // A second connection beside a talk that lives is sent back to it.
    let link = LinkId(77);
    let machine = &mut world.sides[1].machine;
    machine.handle_knock(world.now, link, key(0), name(0), false);
    machine.handle_checked(world.now, link, Checked::Fits(name(0)));
    world.run();
    let elsewhere = Frame::Answer(Answer::Elsewhere);
    assert!(world.sent.contains(&elsewhere) && world.talks(0, 1));
    assert_eq!(world.sides[1].machine.lines.len(), 1);
}

#[test]
fn a_goodbye_before_the_next_request_makes_it_a_question_again() {
    let mut world = talking();
    world.sides[0].machine.hang_up(world.now, &key(1));
    world.call(0, 1);
    world.run();
    world.pass(10 * S);
    assert_eq!(world.sides[1].asked(), 2);
    assert!(!world.talks(0, 1));
}

#[test]
fn silence_is_asked_about_and_then_taken_for_an_end() {
    let mut world = talking();
    world.pass(600 * S);
    assert!(world.talks(0, 1), "pings keep it");
    let pings = world.sent.iter().filter(|frame| **frame == Frame::Ping);
    let pings = pings.count();
    assert!((15..=45).contains(&pings), "{pings}");
    world.is_stalled = true;
    world.pass(121 * S);
    for side in &world.sides {
        let broken = |event: &Event| {
            let Event::Ended { end, .. } = event else {
                return false;
            };
            matches!(end, End::Broken(_))
        };
        assert_eq!(side.count(broken), 1);
    }
    world.assert_idle();
}

#[test]
fn nobody_answers_and_both_sides_give_up() {
    let mut world = World::new(2);
    world.call(0, 1);
    world.pass(61 * S);
    let gave_up =
        |event: &Event| matches!(event, Event::CallFailed { why, .. } if *why == CallEnd::NoAnswer);
    assert_eq!(world.sides[0].count(gave_up), 1);
    let unasked = world.sides[1].count(|event| matches!(event, Event::Unasked(_)));
    assert_eq!(unasked, 1);
    world.assert_idle();
}

#[test]
fn an_offer_and_the_talk_for_it_are_one_question() {
    let mut world = World::new(2);
    let id = world.offer(0, 1, offer("a.txt"));
    world.run();
    let asked = world.sides[1].machine.questions();
    assert_eq!(asked[0].kind, QuestionKind::Offer(offer("a.txt")));
    assert_eq!((asked.len(), world.sides[1].asked()), (1, 1));
    world.answer(1, Verdict::Yes);
    world.run();
    assert!(world.talks(0, 1));
    assert!(world.sides[0].events.contains(&Event::OfferAccepted(id)));
    let taken = world.sides[1].taken();
    assert_eq!(taken.len(), 1);
    // Both hear how far it is, until it is done.
    let (now, theirs) = (world.now, taken[0]);
    let machine = &mut world.sides[1].machine;
    assert!(machine.tell_state(now, theirs, 3, OfferState::Running));
    assert!(machine.tell_state(now, theirs, 5, OfferState::Done));
    assert!(!machine.tell_state(now, theirs, 5, OfferState::Done));
    world.run();
    let told = world.sides[0]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::OfferState { done, state, .. } => Some((*done, *state)),
            _ => None,
        });
    let told: Vec<_> = told.collect();
    assert_eq!(told, [(3, OfferState::Running), (5, OfferState::Done)]);
    let link = world.link(0);
    assert!(world.sides[0].machine.offers.lose(link).is_empty());
}

#[test]
fn row_78_what_is_not_accepted_leads_to_nothing_and_its_denial_is_remembered() {
    let mut world = talking();
    let first = world.offer(0, 1, offer("a.txt"));
    let second = world.offer(0, 1, offer("b.txt"));
    world.run();
    assert_eq!(world.sides[1].machine.questions().len(), 2);
    world.answer(1, Verdict::No);
    world.run();
    let third = world.offer(0, 1, offer("c.txt"));
    world.run();
    for offer in [first, second, third] {
        let why = OfferEnd::Refused(OfferAnswer::Denied);
        let ended = Event::OfferEnded { offer, why };
        assert!(world.sides[0].events.contains(&ended), "{offer:?}");
    }
    assert!(world.sides[1].taken().is_empty());
    assert!(world.talks(0, 1), "a no to a file is none to a talk");
    assert_eq!(world.sides[1].asked(), 2, "the talk, and the first file");
}

#[test]
fn whoever_does_not_want_the_file_does_not_want_the_talk_that_was_for_it() {
    let mut world = World::new(2);
    let id = world.offer(0, 1, offer("a.txt"));
    let other = world.offer(0, 1, offer("b.txt"));
    world.run();
    world.answer(1, Verdict::No);
    world.run();
    for offer in [id, other] {
        let why = OfferEnd::NoTalk(CallEnd::Refused(Answer::No));
        let ended = Event::OfferEnded { offer, why };
        assert!(world.sides[0].events.contains(&ended));
    }
    assert!(world.sides[1].taken().is_empty() && !world.talks(0, 1));
    world.assert_idle();
}

#[test]
fn trust_takes_offers_without_a_question_and_always_is_for_all_that_wait() {
    let mut world = talking();
    for file in ["a", "b", "c"] {
        world.offer(0, 1, offer(file));
    }
    world.run();
    world.regard(1, 0, Regard::Trusted);
    world.answer(1, Verdict::Always);
    world.run();
    assert_eq!(world.sides[1].taken().len(), 3);
    world.offer(0, 1, offer("d"));
    world.run();
    assert_eq!(world.sides[1].taken().len(), 4);
    assert_eq!(world.sides[1].asked(), 2);
    world.regard(1, 0, Regard::OtherKey { known: key(9) });
    let id = world.offer(0, 1, offer("e"));
    world.run();
    assert_eq!(world.sides[1].taken().len(), 4, "no longer that person");
    assert_eq!(world.sides[1].asked(), 2);
    let why = OfferEnd::TalkEnded;
    let ended = Event::OfferEnded { offer: id, why };
    assert!(world.sides[0].events.contains(&ended));
}

#[test]
fn an_offer_that_is_taken_back_is_asked_about_no_longer() {
    let mut world = talking();
    let id = world.offer(0, 1, offer("a"));
    world.run();
    assert_eq!(world.sides[1].machine.questions().len(), 1);
    let machine = &mut world.sides[0].machine;
    assert!(machine.tell_state(world.now, id, 0, OfferState::Withdrawn));
    world.run();
    assert!(world.sides[1].machine.questions().is_empty());
    // Nor one that nobody answers, and one for which there is no talk yet ends the call.
    let id = world.offer(0, 1, offer("b"));
    world.pass(601 * S);
    let why = OfferEnd::NoAnswer;
    let ended = Event::OfferEnded { offer: id, why };
    assert!(world.sides[0].events.contains(&ended));
    assert!(world.sides[1].machine.questions().is_empty());
    let mut world = World::new(2);
    let id = world.offer(0, 1, offer("c"));
    world.run();
    let machine = &mut world.sides[0].machine;
    assert!(machine.tell_state(world.now, id, 0, OfferState::Withdrawn));
    world.run();
    world.assert_idle();
}

#[test]
fn offers_are_bounded_and_none_is_lost_when_both_call() {
    let mut world = talking();
    let mut ids = BTreeSet::new();
    for _ in 0..40 {
        let machine = &mut world.sides[0].machine;
        if let Ok(id) = machine.offer(world.now, &name(1), key(1), offer("x")) {
            ids.insert(id);
        }
    }
    assert_eq!(ids.len(), 32);
    world.run();
    assert_eq!(world.sides[1].machine.questions().len(), 8);
    for seed in 0..100 {
        let mut world = World::new(2);
        world.shuffle(seed);
        for side in 0..2 {
            let other = 1 - side;
            world.regard(side, other, Regard::Trusted);
            world.offer(side, other, offer(&format!("from {side}")));
        }
        world.run();
        for side in &world.sides {
            assert_eq!(side.taken().len(), 1, "seed {seed}");
        }
        assert_eq!(world.open_wires(), 1, "seed {seed}");
    }
}

#[test]
fn frames_that_do_not_belong_end_the_connection() {
    let said = Frame::Text {
        number: 1,
        to_all: false,
        text: text("before the yes"),
    };
    let state = Frame::OfferState {
        whose: Whose::Own,
        number: 1,
        done: 0,
        state: OfferState::Running,
    };
    let early = Frame::Offer {
        number: 1,
        offer: offer("x"),
    };
    for frame in [said, state, early, Frame::Answer(Answer::Yes)] {
        let mut world = World::new(2);
        world.call(0, 1);
        world.run();
        let link = world.link(1);
        let machine = &mut world.sides[1].machine;
        let _ = machine.handle_frame(world.now, link, frame.clone());
        world.run();
        assert!(world.sides[1].machine.lines.is_empty(), "{frame:?}");
        assert!(world.sides[1].heard.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever two do, and whatever is lost: no panic, bounds hold, and in the end nothing is left.
    #[test]
    fn whatever_people_do_nothing_is_left_behind(steps in proptest::collection::vec((0_u8..12, 0_usize..3, 0_u64..40), 0..60)) {
        let mut world = World::new(3);
        for (what, side, pause) in steps {
            let other = (side + 1) % 3;
            let now = world.now;
            match what {
                0 | 1 => world.call(side, other),
                2 => world.call(other, side),
                3 => world.answer(side, Verdict::Yes),
                4 => world.answer(side, Verdict::No),
                5 => world.answer(side, Verdict::Always),
                6 => drop(world.say(side, other, "x")),
                7 => drop(world.sides[side].machine.hang_up(now, &key(other))),
                8 => drop(world.sides[side].machine.offer(now, &name(other), key(other), offer("x"))),
                9 => world.cut(side),
                10 => world.restart(side),
                _ => world.is_stalled = !world.is_stalled,
            }
            if pause % 2 == 0 {
                world.run();
            }
            world.pass(S * u32::try_from(pause).unwrap());
        }
        world.is_stalled = false;
        for side in 0..3 {
            for other in 0..3 {
                world.sides[side].machine.hang_up(world.now, &key(other));
            }
        }
        world.pass(700 * S);
        world.assert_idle();
    }
}
