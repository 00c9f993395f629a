//! The desk, driven by hand with an invented clock.

use super::super::failures::MEMORY;
use super::*;
use crate::crypto::random::OsRandom;

const SECOND: Duration = Duration::from_secs(1);

fn attempt(peer: u16, ip: u8, user: &str) -> Attempt {
    let mut key = [0; 32];
    key[..2].copy_from_slice(&peer.to_be_bytes());
    Attempt {
        peer: PeerId(key),
        session: SessionId::from_bytes([1; 7]),
        request: RequestId(1),
        source: Source::of([10, 0, 0, ip].into()),
        user: user.parse().unwrap(),
    }
}

fn password() -> Password {
    Password::parse("x").unwrap()
}

fn hash() -> Arc<PasswordHash> {
    const CHEAP: &str = "$argon2id$v=19$m=8,t=1,p=1$O5EH4ljNFKZ/INmDTO5lGg$zYqv0s5Cvo/mQvWPeXeT+hT4KJlQ99QSrp5U249Rz2c";
    Arc::new(
        PasswordHash::parse(CHEAP)
            .unwrap()
            .decoy(&mut OsRandom::new()),
    )
}

/// One LOGIN from its first datagram to its outcome.
fn log_in(desk: &mut Desk, now: Instant, mut attempt: Attempt, fits: bool) -> Reply {
    attempt.request = RequestId(u32::try_from(desk.next).unwrap() + 1);
    match desk.receive(now, attempt, password()) {
        Reply::Wait(_) => {}
        other => return other,
    }
    let check = desk.poll_check(now).unwrap();
    desk.finish(now, check.id, fits.then(hash)).unwrap().1
}

#[test]
fn a_repeated_login_starts_no_second_check() {
    let (mut desk, now) = (Desk::new(2), Instant::now());
    let ana = attempt(1, 1, "ana");
    for _ in 0..5 {
        assert!(matches!(
            desk.receive(now, ana.clone(), password()),
            Reply::Wait(_)
        ));
    }
    let check = desk.poll_check(now).unwrap();
    assert!(desk.poll_check(now).is_none());
    let other = Attempt {
        request: RequestId(2),
        ..ana.clone()
    };
    for again in [ana.clone(), other] {
        assert!(matches!(
            desk.receive(now, again, password()),
            Reply::Wait(_)
        ));
    }
    assert!(desk.poll_check(now).is_none(), "also under another number");
    assert!(matches!(
        desk.finish(now, check.id, Some(hash())),
        Some((_, Reply::Right(_)))
    ));
    assert!(matches!(
        desk.receive(now, ana, password()),
        Reply::Right(_)
    ));
    assert!(desk.poll_check(now).is_none());
    assert_eq!(desk.finish(now, check.id, None), None, "once");
}

#[test]
fn as_many_at_a_time_as_there_are_lanes_and_memory_is_bounded() {
    let (mut desk, now) = (Desk::new(3), Instant::now());
    for peer in 0..5000 {
        desk.receive(now, attempt(peer, 1, "ana"), password());
    }
    assert_eq!(desk.queued(), MAX_QUEUED);
    assert!(desk.clients.len() <= MAX_QUEUED);
    let checks: Vec<_> = std::iter::from_fn(|| desk.poll_check(now)).collect();
    assert_eq!(checks.len(), 3);
    desk.finish(now, checks[0].id, None);
    assert_eq!(
        std::iter::from_fn(|| desk.poll_check(now)).count(),
        1,
        "the lane came back"
    );
    for wave in 0..200_u16 {
        let later = now + SECOND * u32::from(wave) * 20;
        for peer in 0..300 {
            desk.receive(later, attempt(wave * 300 + peer, 1, "ana"), password());
        }
        while let Some(check) = desk.poll_check(later) {
            desk.finish(later, check.id, Some(hash()));
        }
        assert!(desk.clients.len() <= MAX_CLIENTS && desk.queued() <= MAX_QUEUED);
    }
}

#[test]
fn five_hundred_at_once_are_all_served_each_with_one_check() {
    let (mut desk, mut now) = (Desk::new(2), Instant::now());
    let mut waiting: Vec<_> = (0..500)
        .map(|peer| (now, attempt(peer, 1, "ana")))
        .collect();
    let (mut checks, mut rounds) = (0, 0);
    while !waiting.is_empty() {
        rounds += 1;
        assert!(rounds < 2000, "{} are never served", waiting.len());
        waiting.retain_mut(|(at, attempt)| {
            if *at > now {
                return true;
            }
            match desk.receive(now, attempt.clone(), password()) {
                Reply::Right(_) => false,
                Reply::Wait(wait) => {
                    *at = now + wait;
                    true
                }
                other => panic!("{other:?}"),
            }
        });
        let under_way: Vec<_> = std::iter::from_fn(|| desk.poll_check(now)).collect();
        now += Duration::from_millis(20);
        for check in under_way {
            checks += 1;
            desk.finish(now, check.id, Some(hash()));
        }
    }
    assert_eq!(checks, 500);
    assert!(rounds < 600, "{rounds} rounds: the lanes stood idle");
}

#[test]
fn failures_make_slower_and_the_right_password_forgives_its_own() {
    let (mut desk, mut now) = (Desk::new(1), Instant::now());
    let ana = || attempt(1, 1, "ana");
    for _ in 0..4 {
        assert_eq!(log_in(&mut desk, now, ana(), false), Reply::Wrong);
    }
    assert!(
        matches!(log_in(&mut desk, now, ana(), true), Reply::Right(_)),
        "four slips are free"
    );
    let mallory = || attempt(2, 2, "ana");
    for _ in 0..5 {
        assert_eq!(log_in(&mut desk, now, mallory(), false), Reply::Wrong);
    }
    for penalty in [1, 2, 4, 8, 16, 32, 60, 60] {
        let wait = penalty * SECOND;
        assert_eq!(
            log_in(&mut desk, now, mallory(), true),
            Reply::TooOften(wait)
        );
        now += wait;
        assert_eq!(
            log_in(&mut desk, now, mallory(), false),
            Reply::Wrong,
            "after {penalty} s"
        );
    }
    let other_key = attempt(3, 2, "ana");
    assert!(
        matches!(log_in(&mut desk, now, other_key, true), Reply::TooOften(_)),
        "keys are free"
    );
    now += MEMORY + SECOND;
    assert_eq!(log_in(&mut desk, now, mallory(), false), Reply::Wrong);
    assert_eq!(
        log_in(&mut desk, now, mallory(), false),
        Reply::Wrong,
        "long ago is forgotten"
    );
}

#[test]
fn one_source_cannot_try_many_names_nor_buy_itself_free() {
    let (mut desk, now) = (Desk::new(1), Instant::now());
    for number in 0..4 {
        let name = format!("user{number}");
        assert_eq!(
            log_in(&mut desk, now, attempt(1, 1, &name), false),
            Reply::Wrong
        );
    }
    assert!(matches!(
        log_in(&mut desk, now, attempt(1, 1, "own"), true),
        Reply::Right(_)
    ));
    assert_eq!(
        log_in(&mut desk, now, attempt(1, 1, "user4"), false),
        Reply::Wrong
    );
    let next = log_in(&mut desk, now, attempt(1, 1, "user5"), true);
    assert_eq!(
        next,
        Reply::TooOften(SECOND),
        "its own login did not forgive the others"
    );
    assert!(
        matches!(
            log_in(&mut desk, now, attempt(1, 1, "own"), true),
            Reply::Right(_)
        ),
        "as whom it is known"
    );
}

#[test]
fn a_flood_in_somebodys_name_does_not_slow_him_where_he_is() {
    let (mut desk, mut now) = (Desk::new(1), Instant::now());
    assert!(matches!(
        log_in(&mut desk, now, attempt(1, 1, "ana"), true),
        Reply::Right(_)
    ));
    // From fifty places, one of them the very source of ana.
    for round in 0..100_u16 {
        for ip in 1..=50 {
            log_in(&mut desk, now, attempt(1000 + round, ip, "ANA"), false);
        }
        now += SECOND;
    }
    assert!(matches!(
        log_in(&mut desk, now, attempt(7, 1, "ana"), true),
        Reply::TooOften(_)
    ));
    assert!(
        matches!(
            log_in(&mut desk, now, attempt(1, 1, "ana"), true),
            Reply::Right(_)
        ),
        "her key is known"
    );
    assert!(
        matches!(
            log_in(&mut desk, now, attempt(8, 99, "ana"), true),
            Reply::Right(_)
        ),
        "a new key elsewhere"
    );
    let (bob, ticket) = (attempt(9, 1, "bob"), attempt(9, 1, "bob").peer);
    assert!(matches!(
        log_in(&mut desk, now, bob.clone(), true),
        Reply::TooOften(_)
    ));
    desk.remember(now, ticket, &bob.user);
    assert!(
        matches!(log_in(&mut desk, now, bob, true), Reply::Right(_)),
        "who came with a ticket"
    );
}

#[test]
fn who_fills_the_queue_fills_his_own_line() {
    let (mut desk, now) = (Desk::new(1), Instant::now());
    for peer in 0..1000 {
        desk.receive(now, attempt(peer, 1, "ana"), password());
    }
    assert_eq!(desk.queued(), MAX_QUEUED);
    desk.receive(now, attempt(2000, 2, "bob"), password());
    assert_eq!(desk.queued(), MAX_QUEUED, "the end of the long line left");
    let mut before_bob = 0;
    loop {
        let check = desk.poll_check(now).unwrap();
        desk.finish(now, check.id, None);
        if check.user.as_str() == "bob" {
            break;
        }
        before_bob += 1;
    }
    assert!(before_bob <= 1, "{before_bob} were before him");
    // The others of that source are not even checked after five failures.
    let mut checked = before_bob;
    while let Some(check) = desk.poll_check(now) {
        checked += 1;
        desk.finish(now, check.id, None);
    }
    assert_eq!((checked, desk.queued()), (5, 0));
}

#[test]
fn nobody_is_checked_who_went_away() {
    let (mut desk, now) = (Desk::new(1), Instant::now());
    desk.receive(now, attempt(1, 1, "ana"), password());
    desk.receive(now, attempt(2, 1, "bob"), password());
    desk.forget(&attempt(1, 1, "ana").peer);
    assert_eq!(desk.queued(), 1);
    assert!(desk.poll_check(now + PATIENCE + SECOND).is_none());
    assert!(desk.clients.is_empty() && desk.lines.is_empty() && desk.turns.is_empty());
}
