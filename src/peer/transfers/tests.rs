//! Downloads in a table: who runs, who waits, and what orders do.

use super::*;
use crate::peer::database::Memory;
use crate::peer::keeper::Restart;
use crate::wire::id::ContentId;

pub(in crate::peer) fn transfers(places: usize) -> Transfers {
    let unfinished = Unfinished::new(Memory::default(), Restart::Restores);
    Transfers::new(places, unfinished)
}

fn aim(number: u8) -> Aim {
    Aim {
        file: Publication {
            name: "x".parse().unwrap(),
            content: ContentId([number; 32]),
            len: 10,
            kind: crate::wire::control::PublicationKind::File,
        },
        from: None,
        dir: "/x".into(),
        is_restricted: false,
    }
}

/// Its handle, and what people want of it.
pub(in crate::peer) fn begin(transfers: &Transfers, number: u8) -> (Handle, Orders) {
    match transfers.begin(aim(number)) {
        Begun::New(handle, orders) => (handle, orders),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn places_are_given_in_turn_and_the_queue_is_numbered() {
    let transfers = transfers(1);
    let handles: Vec<_> = (0..3).map(|number| begin(&transfers, number).0).collect();
    let place = handles[0].place().await;
    let states = || -> Vec<_> {
        transfers
            .list()
            .into_iter()
            .map(|transfer| transfer.state)
            .collect()
    };
    assert_eq!(
        states(),
        [State::Running, State::Queued(0), State::Queued(1)]
    );
    // The youngest asks first, and waits all the same.
    let (mut youngest, mut next) = (Box::pin(handles[2].place()), Box::pin(handles[1].place()));
    let soon = std::time::Duration::from_millis(10);
    let early = tokio::time::timeout(soon, youngest.as_mut()).await;
    assert!(early.is_err());
    drop(place);
    let early = tokio::time::timeout(soon, youngest.as_mut()).await;
    assert!(early.is_err());
    let place = next.as_mut().await;
    drop((place, next));
    let _place = youngest.as_mut().await;
    drop(youngest);
    let mut handles = handles.into_iter();
    drop(handles.next());
    assert_eq!(states(), [State::Running, State::Running]);
    assert_eq!(transfers.list()[0].id, 2, "numbers stay");
}

#[tokio::test]
async fn who_lets_go_of_the_queue_makes_room_for_the_next() {
    let transfers = transfers(1);
    let [first, second, third] = [1, 2, 3].map(|number| begin(&transfers, number).0);
    let place = first.place().await;
    let mut waiting = Box::pin(second.place());
    let soon = std::time::Duration::from_millis(10);
    let early = tokio::time::timeout(soon, waiting.as_mut()).await;
    assert!(early.is_err());
    drop((waiting, place));
    let _place = third.place().await;
}

#[tokio::test]
async fn the_same_is_fetched_once_and_whoever_wants_it_too_hears_of_its_end() {
    let transfers = transfers(1);
    let (handle, _orders) = begin(&transfers, 1);
    let Begun::Joins(joined) = transfers.begin(aim(1)) else {
        panic!("it would be fetched twice")
    };
    assert_eq!(joined.id, handle.id());
    let elsewhere = Aim {
        dir: "/y".into(),
        ..aim(1)
    };
    assert!(matches!(transfers.begin(elsewhere), Begun::New(..)));
    handle.end(Outcome::Failed);
    assert!(matches!(joined.end().await, Outcome::Failed));
    let only = Aim {
        from: Some(PeerId([1; 32])),
        ..aim(1)
    };
    let Begun::New(handle, _orders) = transfers.begin(only.clone()) else {
        panic!("the first one has ended")
    };
    assert!(matches!(transfers.begin(aim(1)), Begun::Blocked(_)));
    let Begun::Joins(joined) = transfers.begin(only) else {
        panic!("it would be fetched twice")
    };
    drop(handle);
    assert!(matches!(joined.end().await, Outcome::Open));
}

#[tokio::test]
async fn a_job_that_nobody_waits_for_any_more_is_settled_before_the_next_one() {
    let (handle, _orders) = begin(&transfers(1), 1);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let kept = Arc::new(());
    let held = Arc::clone(&kept);
    let job = handle.run_blocking(move || (wait.recv().is_ok(), held));
    assert!(
        tokio::time::timeout(std::time::Duration::ZERO, job)
            .await
            .is_err()
    );
    tokio::join!(handle.settle(), async { go.send(()).unwrap() });
    assert_eq!(Arc::strong_count(&kept), 1, "what it returned is gone, too");
}

#[tokio::test]
async fn orders_reach_their_download_and_a_cancelled_one_stays_so() {
    let transfers = transfers(1);
    let (_handle, mut orders) = begin(&transfers, 1);
    assert!(transfers.order(1, Order::Pause) && !transfers.order(2, Order::Pause));
    assert_eq!(orders.until_other_than(Order::Run).await, Order::Pause);
    assert!(transfers.order(1, Order::Cancel) && transfers.order(1, Order::Run));
    assert_eq!(orders.current(), Order::Cancel);
}

/// Also one whose program is killed the moment after.
#[tokio::test]
async fn a_paused_download_is_paused_at_the_next_start_and_may_have_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let unfinished = || {
        let (events, _) = tokio::sync::mpsc::channel(1);
        let memory = Memory::new(Some(dir.path().to_owned()), events);
        Unfinished::new(memory, Restart::Restores)
    };
    let transfers = Transfers::new(1, unfinished());
    let (handle, orders) = begin(&transfers, 1);
    assert!(transfers.order(1, Order::Pause));
    handle.note_finishing().await;
    drop((handle, orders, transfers));
    let unfinished = unfinished();
    let loaded = unfinished.load();
    let [(id, record)] = &loaded.records[..] else {
        panic!("{loaded:?}")
    };
    assert!(record.is_paused && record.is_finishing);
    let transfers = Transfers::new(1, unfinished);
    let (_handle, orders) = transfers.take_up(*id, record);
    assert_eq!(orders.current(), Order::Pause);
    assert_eq!(transfers.list()[0].state, State::Paused);
}

#[tokio::test]
async fn who_is_paused_before_its_turn_keeps_nobody_waiting() {
    let transfers = transfers(1);
    let [first, second] = [1, 2].map(|number| begin(&transfers, number).0);
    first.pause();
    let soon = std::time::Duration::from_secs(5);
    let place = tokio::time::timeout(soon, second.place()).await;
    assert!(place.is_ok());
}

#[tokio::test]
async fn what_is_getting_its_name_is_let_go_of_only_when_that_fails() {
    use std::time::Duration;
    let transfers = transfers(1);
    let (handle, mut orders) = begin(&transfers, 1);
    handle.set_naming(true);
    assert!(transfers.order(1, Order::Pause));
    let mut letting_go = Box::pin(handle.until_let_go(&mut orders));
    let soon = Duration::from_millis(10);
    let early = tokio::time::timeout(soon, letting_go.as_mut()).await;
    assert!(early.is_err());
    assert!(transfers.order(1, Order::Run));
    handle.set_naming(false);
    let early = tokio::time::timeout(soon, letting_go.as_mut()).await;
    assert!(early.is_err(), "it shall go on");
    assert!(transfers.order(1, Order::Cancel));
    letting_go.await;
}
