//! Talks between whole peers of a real tracker: who is found, asked, heard, and gone.

use std::time::Duration;

use p2pfs::crypto::identity::Identity;
use p2pfs::crypto::kdf::{Group, NetworkName};
use p2pfs::crypto::random::OsRandom;
use p2pfs::crypto::secret::Passphrase;
use p2pfs::peer::{Accept, Delivery, Event, Limits, Peer, Restart, Settings, TalkError, Verdict};
use p2pfs::proto::backoff::Retry;
use p2pfs::tracker::{self, Tracker};
use p2pfs::wire::text::UserName;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

fn tracker_of(dir: &std::path::Path, group: &Group) -> (Tracker, u16) {
    let settings = tracker::Settings {
        bind: Some(LOOPBACK.into()),
        port: 0,
        workers: Some(1),
        heartbeat: Duration::from_secs(2),
        silence: Duration::from_secs(3),
        max_peers: 10,
        state_dir: dir.to_owned(),
        credentials: None,
        metrics: None,
    };
    let tracker = Tracker::bind(settings, group.clone()).unwrap();
    let port = tracker.port();
    (tracker, port)
}

async fn join(name: &str, port: u16, group: &Group) -> (Peer, mpsc::Receiver<Event>) {
    let settings = Settings {
        tracker_host: "127.0.0.1".to_owned(),
        tracker_port: port,
        tracker_key: None,
        tracker_pin: None,
        lan: None,
        user: name.parse().unwrap(),
        password: None,
        ports: (0, 0),
        bind: Some(LOOPBACK.into()),
        downloads: std::env::temp_dir(),
        prefix: String::new(),
        seed: false,
        limits: Limits::default(),
        simultaneous: 1,
        retry: Retry::default(),
        accept: Accept::Ask,
        deny_for: Duration::from_secs(300),
        state_dir: None,
        restart: Restart::Ignores,
        unfinished: Restart::Ignores,
    };
    let identity = Identity::generate(&mut OsRandom::new());
    Peer::join(settings, group.clone(), identity).await.unwrap()
}

async fn next<T>(events: &mut mpsc::Receiver<Event>, pick: impl Fn(Event) -> Option<T>) -> T {
    let waiting = async {
        loop {
            let event = events.recv().await.expect("the peer runs");
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    };
    let waiting = tokio::time::timeout(Duration::from_secs(30), waiting);
    waiting.await.expect("it happens in time")
}

/// Shows: two peers of a tracker talk after a yes, in whatever case the name is written; what is said to all is
/// heard by all to whom one talks and by nobody else; a talk ends with its peer, and nobody remembers it.
/// How: three peers and a tracker in one process, over real sockets.
#[tokio::test(flavor = "multi_thread")]
async fn peers_of_a_tracker_talk_after_a_yes_and_until_one_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let passphrase = Passphrase::parse("a passphrase for tests").unwrap();
    let group = Group::derive(&passphrase, NetworkName::default());
    let (tracker, port) = tracker_of(dir.path(), &group);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(tracker.run(shutdown.clone()));
    let (ana, mut at_ana) = join("ana", port, &group).await;
    let (bob, mut at_bob) = join("bob", port, &group).await;
    let (carl, mut at_carl) = join("carl", port, &group).await;

    let name: UserName = "BOB".parse().unwrap();
    let said = "what I say is not what I share";
    let saying = ana.say(&name, said.parse().unwrap());
    let hearing = async {
        let question = next(&mut at_bob, |event| match event {
            Event::Asked(question) => Some(question),
            _ => None,
        })
        .await;
        assert_eq!((&question.user, question.key), (ana.user(), ana.id()));
        assert_eq!(bob.questions().len(), 1);
        assert!(bob.answer(question.id, Verdict::Yes).await.unwrap());
        heard(&mut at_bob).await
    };
    let (delivered, (user, to_all, text)) = tokio::join!(saying, hearing);
    assert_eq!(delivered, Ok(Delivery::Delivered));
    assert_eq!((&user, to_all, text.as_str()), (ana.user(), false, said));

    let to_all = bob.say_all("hello".parse().unwrap()).await;
    assert_eq!(to_all, [(ana.user().clone(), Ok(Delivery::Delivered))]);
    let (_, to_all, _) = heard(&mut at_ana).await;
    assert!(to_all && carl.talks().is_empty() && at_carl.try_recv().is_err());

    bob.leave().await;
    let left = next(&mut at_ana, |event| match event {
        Event::TalkEnded { user, .. } => Some(user),
        _ => None,
    });
    assert_eq!(left.await, *bob.user());
    assert!(ana.talks().is_empty());
    let gone = ana.connect(bob.user()).await;
    assert_eq!(gone, Err(TalkError::NotHere(bob.user().clone())));
    ana.leave().await;
    carl.leave().await;
    shutdown.cancel();
    let _ = running.await;
}

async fn heard(events: &mut mpsc::Receiver<Event>) -> (UserName, bool, String) {
    next(events, |event| match event {
        Event::Said {
            user, to_all, text, ..
        } => Some((user, to_all, text.as_str().to_owned())),
        _ => None,
    })
    .await
}
