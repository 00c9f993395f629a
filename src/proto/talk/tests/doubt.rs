//! Whoever was blocked, gives a false name or changes his mind: what is left of what he asked.

use super::*;

/// Two who talk, the first of whom has dialled once more; and a third one.
fn talking_with_reserve() -> (World, LinkId) {
    let mut world = World::new(3);
    world.call(0, 1);
    world.run();
    world.answer(1, Verdict::Yes);
    world.run();
    let link = LinkId(7777);
    let machine = &mut world.sides[1].machine;
    machine.handle_knock(world.now, link, key(0), name(0), false);
    machine.handle_checked(world.now, link, Checked::Fits(name(0)));
    (world, link)
}

fn unasked(world: &World, side: usize) -> usize {
    world.sides[side].count(|event| matches!(event, Event::Unasked(_)))
}

fn failed(world: &World, side: usize) -> Vec<CallEnd> {
    let events = world.sides[side].events.iter();
    let failed = events.filter_map(|event| match event {
        Event::CallFailed { why, .. } => Some(why.clone()),
        _ => None,
    });
    failed.collect()
}

fn withdraw(world: &mut World, side: usize, id: OfferId) {
    let machine = &mut world.sides[side].machine;
    assert!(machine.tell_state(world.now, id, 0, OfferState::Withdrawn));
}

#[test]
fn whoever_was_blocked_gets_in_over_no_connection_that_waited() {
    for accept in [Accept::All, Accept::Ask] {
        for regard in [Regard::Blocked, Regard::OtherKey { known: key(9) }] {
            let (mut world, link) = talking_with_reserve();
            let machine = &mut world.sides[1].machine;
            machine.set_accept(accept);
            world.regard(1, 0, regard);
            let machine = &mut world.sides[1].machine;
            machine.hang_up(world.now, &key(0));
            assert!(!machine.is_open(&key(0)), "{accept:?} {regard:?}");
            assert!(machine.questions().is_empty(), "{accept:?} {regard:?}");
            // Nor when the connection of the talk breaks.
            let (mut world, _) = talking_with_reserve();
            world.regard(1, 0, regard);
            let talk = world.link(1);
            assert!(talk != link);
            let machine = &mut world.sides[1].machine;
            machine.handle_closed(world.now, talk, Some("cut".to_owned()));
            assert!(!machine.is_open(&key(0)), "{accept:?} {regard:?}");
        }
    }
}

#[test]
fn whoever_was_blocked_while_both_called_is_not_let_in_when_our_call_fails() {
    // The smaller key keeps what the other one dialled until its own call is answered.
    let mut world = World::new(2);
    world.is_stalled = true;
    world.call(0, 1);
    world.run();
    let link = LinkId(7777);
    let machine = &mut world.sides[0].machine;
    machine.handle_knock(world.now, link, key(1), name(1), false);
    machine.handle_checked(world.now, link, Checked::Fits(name(1)));
    world.regard(0, 1, Regard::Blocked);
    let machine = &mut world.sides[0].machine;
    machine.handle_dialled(world.now, key(1), Err("no route".to_owned()));
    assert!(!machine.is_open(&key(1)));
    let told = std::iter::from_fn(|| machine.poll_event());
    let told = told.filter(|event| matches!(event, Event::CallFailed { .. }));
    assert_eq!(told.count(), 1, "whoever waits for the call is told");
}

#[test]
fn a_block_takes_questions_out_and_ends_the_talk() {
    let mut world = World::new(3);
    world.call(0, 1);
    world.run();
    assert_eq!(world.sides[1].machine.questions().len(), 1);
    world.regard(1, 0, Regard::Blocked);
    world.sides[1].machine.shut_out(world.now, &key(0));
    world.run();
    assert_eq!(unasked(&world, 1), 1);
    assert_eq!(failed(&world, 0), [CallEnd::Refused(Answer::No)]);
    world.assert_idle();
    // A talk, with an offer that is asked about and another connection.
    let (mut world, _) = talking_with_reserve();
    world.offer(0, 1, offer("a"));
    world.run();
    world.call(2, 1);
    world.run();
    world.regard(1, 0, Regard::Blocked);
    world.sides[1].machine.shut_out(world.now, &key(0));
    world.run();
    assert!(!world.talks(0, 1) && !world.sides[1].machine.is_open(&key(0)));
    let questions = world.sides[1].machine.questions();
    let who: Vec<_> = questions.iter().map(|question| question.key).collect();
    assert_eq!(who, [key(2)], "others are asked about as before");
}

#[test]
fn without_a_tracker_only_a_name_with_its_own_key_is_let_in() {
    for checked in [Checked::Unknown, Checked::Nobody] {
        for (regard, has_name, is_in) in [
            (Regard::Unknown, false, false),
            (Regard::Trusted, false, false),
            (Regard::Trusted, true, true),
        ] {
            let mut world = World::new(2);
            world.checks = Some(checked.clone());
            if has_name {
                world.regard(1, 0, regard);
            } else {
                world.regard_nameless(1, 0, regard);
            }
            world.call(0, 1);
            world.run();
            assert_eq!(world.talks(0, 1), is_in, "{checked:?} {regard:?}");
            if !is_in {
                let answer = match checked {
                    Checked::Nobody => Answer::WrongName,
                    _ => Answer::Unchecked,
                };
                assert_eq!(failed(&world, 0), [CallEnd::Refused(answer)]);
            }
        }
    }
    // A name that another key bears now is not let in, whoever had it before.
    let mut world = World::new(2);
    world.checks = Some(Checked::WrongName);
    world.regard(1, 0, Regard::Trusted);
    world.call(0, 1);
    world.run();
    assert!(!world.talks(0, 1));
}

#[test]
fn one_key_with_many_false_names_is_told_of_once_and_seldom_asked_about() {
    let mut world = World::new(2);
    let (mut asked, mut told) = (0, 0);
    for second in 0..300 {
        let now = world.now + second * S;
        let link = LinkId(u64::from(second));
        let machine = &mut world.sides[1].machine;
        let user = format!("fresh{second}").parse().unwrap();
        machine.handle_knock(now, link, key(0), user, false);
        while let Some(action) = machine.poll_action() {
            assert!(matches!(action, Action::Check { .. }));
            asked += 1;
            machine.handle_checked(now, link, Checked::WrongName);
        }
        let events = std::iter::from_fn(|| machine.poll_event());
        told += events
            .filter(|event| matches!(event, Event::WrongName { .. }))
            .count();
        let sent: Vec<_> = std::iter::from_fn(|| machine.poll_transmit()).collect();
        let wrong = Transmit::Send(link, Frame::Answer(Answer::WrongName));
        assert!(sent.contains(&wrong), "{sent:?}");
    }
    assert_eq!((asked, told), (10, 1));
    // Whom we call ourselves we do not doubt.
    world.now += 300 * S;
    world.call(1, 0);
    world.call(0, 1);
    world.run();
    assert!(world.talks(0, 1));
}

#[test]
fn whoever_was_not_let_in_is_not_answered_whether_we_are_there() {
    let mut world = World::new(2);
    world.call(0, 1);
    world.run();
    let link = world.link(1);
    let machine = &mut world.sides[1].machine;
    let _ = machine.handle_frame(world.now, link, Frame::Ping);
    assert_eq!(machine.poll_transmit(), None);
    world.answer(1, Verdict::Yes);
    world.run();
    let machine = &mut world.sides[1].machine;
    let _ = machine.handle_frame(world.now, link, Frame::Ping);
    let pong = Transmit::Send(link, Frame::Pong);
    assert_eq!(machine.poll_transmit(), Some(pong));
}

#[test]
fn a_question_that_nobody_could_be_shown_is_shown_a_moment_later() {
    let mut world = World::new(3);
    world.sides[2].shows = false;
    world.call(0, 2);
    world.call(1, 2);
    world.pass(5 * S);
    assert_eq!(world.sides[2].asked(), 0);
    world.sides[2].shows = true;
    world.pass(2 * S);
    assert_eq!(world.sides[2].asked(), 1);
    world.answer(2, Verdict::Yes);
    world.run();
    assert_eq!(world.sides[2].asked(), 2);
}

#[test]
fn an_answer_to_one_question_takes_the_shown_one_of_the_same_key_away() {
    let mut world = talking();
    for file in ["a", "b"] {
        world.offer(0, 1, offer(file));
    }
    world.run();
    let [first, second] = &world.sides[1].machine.questions()[..] else {
        panic!("two")
    };
    let (first, second) = (first.id, second.id);
    let before = unasked(&world, 1);
    assert!(
        world.sides[1]
            .machine
            .answer(world.now, second, Verdict::No)
    );
    world.run();
    assert_eq!(unasked(&world, 1), before + 1);
    assert!(world.sides[1].events.contains(&Event::Unasked(first)));
}

#[test]
fn an_offer_that_is_taken_back_ends_no_call_that_others_wait_for() {
    let ended = |world: &World, offer| {
        world.sides[0]
            .count(|event| matches!(event, Event::OfferEnded { offer: it, .. } if *it == offer))
    };
    // Before there is a connection, and after they saw the first offer.
    for is_asked in [false, true] {
        for is_for_talk in [false, true] {
            let mut world = World::new(2);
            let first = world.offer(0, 1, offer("a"));
            let second = (!is_for_talk).then(|| world.offer(0, 1, offer("b")));
            if is_for_talk {
                world.call(0, 1);
            }
            if is_asked {
                world.run();
            }
            withdraw(&mut world, 0, first);
            world.run();
            assert_eq!(failed(&world, 0), [], "{is_asked} {is_for_talk}");
            assert_eq!(world.sides[1].machine.questions().len(), 1);
            world.answer(1, Verdict::Yes);
            world.run();
            assert!(world.talks(0, 1), "{is_asked} {is_for_talk}");
            assert_eq!(ended(&world, first), 0);
            if let Some(second) = second {
                assert_eq!(ended(&world, second), 0);
            }
            // Whoever said yes to what was taken back meanwhile is told.
            let told = |event: &Event| {
                let withdrawn = OfferState::Withdrawn;
                matches!(event, Event::OfferState { state, .. } if *state == withdrawn)
            };
            assert_eq!(world.sides[1].count(told), usize::from(is_asked));
        }
    }
    // The last one ends it, also before there is a connection.
    let mut world = World::new(2);
    let [first, second] = ["a", "b"].map(|file| world.offer(0, 1, offer(file)));
    withdraw(&mut world, 0, second);
    withdraw(&mut world, 0, first);
    world.run();
    assert_eq!(failed(&world, 0), [CallEnd::Cancelled]);
    world.assert_idle();
}
