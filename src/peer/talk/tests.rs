//! Talks between peers on loopback, with a tracker that is a table of names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tokio::task::JoinHandle;

use super::*;
use crate::crypto::identity::Identity;
use crate::crypto::kdf::{Group, MemberKey, NetworkName};
use crate::crypto::random::OsRandom;
use crate::crypto::secret::{Passphrase, Secret};
use crate::peer::connection::tests::connected;
use crate::peer::event::RequestError;
use crate::peer::growing::Nursery;
use crate::peer::listen::Listener;
use crate::peer::people::PeopleError;
use crate::peer::shares::{Background, Shares};
use crate::peer::spread::Spread;
use crate::peer::throttle::Throttle;
use crate::peer::upload::Offers;
use crate::proto::talk::{Delivery, End, Question, QuestionKind, Verdict};
use crate::wire::control::{Publication, PublicationKind, Request, Response};
use crate::wire::id::ContentId;
use crate::wire::talk::{Offer, OfferState};
use crate::wire::text::ChatText;

/// Who is where: what the tracker says.
type Names = Arc<Mutex<BTreeMap<String, PeerEntry>>>;

/// The peers of one group.
struct World {
    group: Group,
    names: Names,
}

/// One who talks.
struct Person {
    user: UserName,
    key: PeerId,
    talker: Talker,
    people: People,
    events: mpsc::Receiver<Event>,
    news: mpsc::Receiver<OfferNews>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl World {
    fn new() -> Self {
        let passphrase = Passphrase::parse("a passphrase for tests").unwrap();
        Self {
            group: Group::derive(&passphrase, NetworkName::default()),
            names: Names::default(),
        }
    }

    fn enter(&self, name: &str, accept: Accept) -> Person {
        self.enter_as(name, Identity::generate(&mut OsRandom::new()), accept, None)
    }

    fn enter_as(
        &self,
        name: &str,
        identity: Identity,
        accept: Accept,
        state_dir: Option<&Path>,
    ) -> Person {
        let (user, key): (UserName, _) = (name.parse().unwrap(), identity.id());
        let membership = Membership::new(self.group.clone(), identity);
        membership.learn(MemberKey(Secret::new([9; 32])));
        let names = Arc::clone(&self.names);
        let control = Control::answering(move |request| match request {
            Request::Who(who) => {
                let names = names.lock().unwrap();
                let entry = names.get(&who.user.folded());
                entry
                    .cloned()
                    .map(Response::Who)
                    .ok_or(RequestError::NoSuchUser)
            }
            other => panic!("{other:?}"),
        });
        let people = People::open(state_dir, NetworkName::default()).unwrap();
        let (events, receiver) = mpsc::channel(64);
        let shutdown = CancellationToken::new();
        let (talker, keeping) = Talker::new(Setup {
            user: user.clone(),
            membership: membership.clone(),
            control,
            people: people.clone(),
            accept,
            deny_for: Duration::from_secs(300),
            events,
            shutdown: shutdown.clone(),
        });
        let listener = Listener::bind(Some([127, 0, 0, 1].into()), (0, 0)).unwrap();
        let entry = PeerEntry {
            user: user.clone(),
            peer: key,
            addresses: vec![([127, 0, 0, 1], listener.port()).into()],
            files: 0,
            since_s: 0,
        };
        self.names.lock().unwrap().insert(user.folded(), entry);
        let offers = Offers {
            shares: Shares::new(Background::default()).0,
            nursery: Nursery::default(),
            throttle: Throttle::default(),
            spread: Spread::default(),
        };
        let listening = listener.run(membership, offers, talker.clone(), shutdown.clone());
        let news = talker.0.news.lock().unwrap().take().unwrap();
        Person {
            user,
            key,
            talker,
            people,
            events: receiver,
            news,
            shutdown,
            tasks: vec![tokio::spawn(keeping), tokio::spawn(listening)],
        }
    }
}

impl Person {
    async fn event(&mut self) -> Event {
        let waiting = tokio::time::timeout(Duration::from_secs(20), self.events.recv());
        waiting.await.expect("something happens").expect("it runs")
    }

    /// The next event that `fits`; what comes before it is passed over.
    async fn event_that(&mut self, fits: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.event().await;
            if fits(&event) {
                return event;
            }
        }
    }

    async fn asked(&mut self) -> Question {
        match self
            .event_that(|event| matches!(event, Event::Asked(_)))
            .await
        {
            Event::Asked(question) => question,
            other => panic!("{other:?}"),
        }
    }

    async fn heard(&mut self) -> (UserName, bool, String) {
        match self
            .event_that(|event| matches!(event, Event::Said { .. }))
            .await
        {
            Event::Said {
                user, to_all, text, ..
            } => (user, to_all, text.as_str().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    async fn connect(&self, other: &UserName) -> Result<(), TalkError> {
        self.talker.connect(other).await.map(drop)
    }

    async fn say(&self, other: &UserName, said: &str) -> Result<Delivery, TalkError> {
        self.talker.say_to(other, said.parse().unwrap()).await
    }

    async fn answer(&self, question: &Question, verdict: Verdict) {
        assert!(self.talker.answer(question.id, verdict).await.unwrap());
    }

    fn talks_with(&self) -> Vec<String> {
        let talks = self.talker.talks().into_iter();
        talks.map(|talk| talk.user.to_string()).collect()
    }

    async fn leave(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

fn file(name: &str) -> Offer {
    Offer {
        publication: Publication {
            name: name.parse().unwrap(),
            content: ContentId([7; 32]),
            len: 5,
            kind: PublicationKind::File,
        },
        files: 1,
        size: 5,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_talk_after_a_yes_and_each_message_is_told_to_have_been_shown() {
    let world = World::new();
    let (ana, mut bob) = (
        world.enter("ana", Accept::Ask),
        world.enter("bob", Accept::Ask),
    );
    let name = bob.user.clone();
    let saying = ana.say(&name, "hi, Bob\n(two lines)");
    let answering = async {
        let question = bob.asked().await;
        assert_eq!((question.user.as_str(), question.key), ("ana", ana.key));
        assert_eq!(question.kind, QuestionKind::Talk);
        bob.answer(&question, Verdict::Yes).await;
        bob.heard().await
    };
    let (said, (user, to_all, text)) = tokio::join!(saying, answering);
    assert_eq!(said, Ok(Delivery::Delivered));
    assert_eq!((user.as_str(), to_all), ("ana", false));
    assert_eq!(text, "hi, Bob\n(two lines)");
    assert_eq!(
        (ana.talks_with(), bob.talks_with()),
        (vec!["bob".to_owned()], vec!["ana".to_owned()])
    );
    // Whoever was met has a key from now on.
    assert_eq!(ana.people.key_of(&bob.user), Some(bob.key));
    assert_eq!(bob.people.key_of(&ana.user), Some(ana.key));
    assert_eq!(ana.talker.disconnect(None), [bob.user.clone()]);
    let ended = bob
        .event_that(|event| matches!(event, Event::TalkEnded { .. }))
        .await;
    assert!(matches!(
        ended,
        Event::TalkEnded {
            end: End::There,
            ..
        }
    ));
    assert!(bob.talks_with().is_empty());
    ana.leave().await;
    bob.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_denied_is_told_so_and_asks_in_vain_without_a_question() {
    let world = World::new();
    let (ana, mut bob) = (
        world.enter("ana", Accept::Ask),
        world.enter("bob", Accept::Ask),
    );
    let name = bob.user.clone();
    let denying = async {
        let question = bob.asked().await;
        bob.answer(&question, Verdict::No).await;
    };
    let (refused, ()) = tokio::join!(ana.connect(&name), denying);
    let no = TalkError::Refused(name.clone(), crate::wire::talk::Answer::No);
    assert_eq!(refused, Err(no.clone()));
    for _ in 0..20 {
        assert_eq!(ana.connect(&name).await, Err(no.clone()));
    }
    assert!(bob.talker.questions().is_empty());
    assert!(bob.events.try_recv().is_err(), "silence");
    let nobody = "nobody".parse().unwrap();
    assert_eq!(ana.connect(&nobody).await, Err(TalkError::NotHere(nobody)));
    assert_eq!(ana.connect(&ana.user).await, Err(TalkError::Oneself));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_another_ones_at_the_tracker_is_refused_before_anybody_sees_it() {
    let world = World::new();
    let (mut bob, ana) = (
        world.enter("bob", Accept::All),
        world.enter("ana", Accept::Ask),
    );
    // Eve says that she is ana, whom the tracker knows with her own key.
    let eve = world.enter("eve", Accept::Ask);
    let posing = Talker::new(Setup {
        user: ana.user.clone(),
        membership: eve.talker.0.membership.clone(),
        control: eve.talker.0.control.clone(),
        people: eve.people.clone(),
        accept: Accept::Ask,
        deny_for: Duration::ZERO,
        events: mpsc::channel(8).0,
        shutdown: eve.shutdown.clone(),
    });
    let keeping = tokio::spawn(posing.1);
    let refused = posing.0.connect(&bob.user).await;
    let wrong = crate::wire::talk::Answer::WrongName;
    assert_eq!(refused, Err(TalkError::Refused(bob.user.clone(), wrong)));
    let told = Event::WrongName {
        user: ana.user.clone(),
        key: eve.key,
    };
    assert_eq!(bob.event().await, told);
    assert!(bob.talks_with().is_empty() && bob.people.key_of(&ana.user).is_none());
    eve.leave().await;
    keeping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_name_with_another_key_is_stopped_at_both_ends_until_it_is_trusted() {
    let world = World::new();
    let (ana, mut bob) = (
        world.enter("ana", Accept::All),
        world.enter("bob", Accept::All),
    );
    ana.connect(&bob.user).await.unwrap();
    let old = ana.key;
    let name = ana.user.clone();
    ana.leave().await;
    bob.event_that(|event| matches!(event, Event::TalkEnded { .. }))
        .await;
    let ana = world.enter("ana", Accept::All);
    let other = TalkError::Refused(bob.user.clone(), crate::wire::talk::Answer::OtherKey);
    assert_eq!(ana.connect(&bob.user).await, Err(other));
    let told = Event::OtherKey {
        user: name.clone(),
        known: old,
        found: ana.key,
    };
    assert_eq!(bob.event().await, told);
    let stopped = TalkError::OtherKey {
        user: name.clone(),
        known: old.fingerprint(),
        found: ana.key.fingerprint(),
    };
    assert_eq!(bob.connect(&name).await, Err(stopped.clone()));
    let offered = bob.talker.offer(&name, file("x")).await;
    assert_eq!(offered, Err(stopped));
    assert!(ana.talks_with().is_empty());
    bob.people.trust(&name, ana.key).unwrap();
    assert_eq!(bob.connect(&name).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn always_lets_somebody_in_from_then_on_and_is_remembered() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let identity = Identity::generate(&mut OsRandom::new());
    let ana = world.enter("ana", Accept::Ask);
    let mut bob = world.enter_as("bob", identity, Accept::Ask, Some(dir.path()));
    let name = bob.user.clone();
    let always = async {
        let question = bob.asked().await;
        bob.answer(&question, Verdict::Always).await;
    };
    let (connected, ()) = tokio::join!(ana.connect(&name), always);
    assert_eq!(connected, Ok(()));
    assert_eq!(ana.talker.disconnect(Some(&name)).len(), 1);
    bob.event_that(|event| matches!(event, Event::TalkEnded { .. }))
        .await;
    assert_eq!(ana.connect(&name).await, Ok(()), "no question");
    bob.leave().await;
    let bob = world.enter_as(
        "bob",
        Identity::generate(&mut OsRandom::new()),
        Accept::Trusted,
        Some(dir.path()),
    );
    // Ana knows another key of that name; bob still knows hers.
    ana.people.trust(&name, bob.key).unwrap();
    assert_eq!(ana.connect(&name).await, Ok(()));
    let eve = world.enter("eve", Accept::Ask);
    let closed = crate::wire::talk::Answer::NotAccepting;
    assert_eq!(
        eve.connect(&name).await,
        Err(TalkError::Refused(name, closed))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_dial_at_once_and_end_with_one_talk_over_which_all_is_heard() {
    let world = World::new();
    for round in 0..10 {
        let names = [format!("a{round}"), format!("b{round}")];
        let [mut ana, mut bob] = names.map(|name| world.enter(&name, Accept::Ask));
        let (to_bob, to_ana) = (bob.user.clone(), ana.user.clone());
        let (there, back) = tokio::join!(ana.say(&to_bob, "to bob"), bob.say(&to_ana, "to ana"));
        assert_eq!(
            (there, back),
            (Ok(Delivery::Delivered), Ok(Delivery::Delivered))
        );
        let (at_bob, at_ana) = tokio::join!(bob.heard(), ana.heard());
        assert_eq!((at_bob.2.as_str(), at_ana.2.as_str()), ("to bob", "to ana"));
        for person in [&ana, &bob] {
            assert_eq!(person.talks_with().len(), 1);
            assert!(person.talker.questions().is_empty());
        }
        ana.leave().await;
        bob.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_all_is_one_copy_for_each_and_whoever_left_is_told_of() {
    let world = World::new();
    let ana = world.enter("ana", Accept::Ask);
    let others: Vec<_> = ["bob", "carl", "dora"]
        .map(|name| world.enter(name, Accept::All))
        .into();
    for other in &others {
        ana.connect(&other.user).await.unwrap();
    }
    let said = ana.talker.say_all(&"all".parse().unwrap()).await;
    let who: BTreeSet<_> = said.iter().map(|(user, _)| user.to_string()).collect();
    assert_eq!(who.len(), 3);
    assert!(
        said.iter()
            .all(|(_, said)| *said == Ok(Delivery::Delivered))
    );
    for mut other in others {
        let (_, to_all, _) = other.heard().await;
        assert!(to_all);
        other.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_77_a_flood_is_slowed_at_its_sender_and_disconnect_works_at_once() {
    let world = World::new();
    let (ana, mut bob) = (
        world.enter("ana", Accept::Ask),
        world.enter("bob", Accept::All),
    );
    ana.connect(&bob.user).await.unwrap();
    let mut ends = Vec::new();
    for number in 0..25 {
        ends.push(ana.say(&bob.user, &format!("{number}")).await.unwrap());
    }
    let too_fast = ends
        .iter()
        .filter(|end| matches!(end, Delivery::TooFast(_)));
    assert!((1..=5).contains(&too_fast.count()), "{ends:?}");
    // So many that they are still on their way when it ends.
    let flood: Vec<_> = (0..60)
        .map(|_| {
            let (talker, user) = (ana.talker.clone(), bob.user.clone());
            tokio::spawn(async move { talker.say_to(&user, "x".parse().unwrap()).await })
        })
        .collect();
    assert_eq!(bob.talker.disconnect(None).len(), 1);
    assert!(bob.talks_with().is_empty());
    for said in flood {
        // Some began a talk anew, for bob lets everybody in.
        let _ = said.await.unwrap();
    }
    let text: ChatText = "x".repeat(8192).parse().unwrap();
    assert!("x".repeat(1 << 20).parse::<ChatText>().is_err());
    loop {
        match ana.talker.say_to(&bob.user, text.clone()).await.unwrap() {
            Delivery::TooFast(wait) => tokio::time::sleep(wait).await,
            said => break assert_eq!(said, Delivery::Delivered),
        }
    }
    let mut longest = 0;
    while let Ok(event) = bob.events.try_recv() {
        if let Event::Said { text, .. } = event {
            longest = longest.max(text.as_str().len());
        }
    }
    assert_eq!(longest, 8192);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_asks_nobody_any_longer() {
    let world = World::new();
    let (ana, mut bob) = (
        world.enter("ana", Accept::Ask),
        world.enter("bob", Accept::Ask),
    );
    let name = bob.user.clone();
    let calling = tokio::time::timeout(Duration::from_millis(500), ana.connect(&name));
    let (given_up, question) = tokio::join!(calling, bob.asked());
    assert!(given_up.is_err());
    let unasked = bob
        .event_that(|event| matches!(event, Event::Unasked(_)))
        .await;
    assert_eq!(unasked, Event::Unasked(question.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_says_goodbye_and_whoever_waits_for_him_is_told() {
    let world = World::new();
    let (ana, mut bob) = (
        world.enter("ana", Accept::Ask),
        world.enter("bob", Accept::All),
    );
    ana.connect(&bob.user).await.unwrap();
    let carl = world.enter("carl", Accept::Ask);
    let waiting = ana.connect(&carl.user);
    let leaving = async {
        while carl.talker.questions().is_empty() {
            tokio::task::yield_now().await;
        }
        ana.shutdown.cancel();
    };
    let (left, ()) = tokio::join!(waiting, leaving);
    assert_eq!(left, Err(TalkError::Leaving));
    let ended = bob
        .event_that(|event| matches!(event, Event::TalkEnded { .. }))
        .await;
    assert!(matches!(
        ended,
        Event::TalkEnded {
            end: End::There,
            ..
        }
    ));
    ana.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_reads_is_not_told_to_have_been_shown() {
    let world = World::new();
    let (ana, bob) = (
        world.enter("ana", Accept::Ask),
        world.enter("bob", Accept::All),
    );
    ana.connect(&bob.user).await.unwrap();
    let mut bob = bob;
    bob.events.close();
    assert_eq!(ana.say(&bob.user, "hello?").await, Ok(Delivery::NotShown));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_is_one_question_and_both_sides_hear_how_far_it_is() {
    let world = World::new();
    let (mut ana, mut bob) = (
        world.enter("ana", Accept::Ask),
        world.enter("bob", Accept::Ask),
    );
    let name = bob.user.clone();
    let accepting = async {
        let question = bob.asked().await;
        assert_eq!(question.kind, QuestionKind::Offer(file("a.txt")));
        bob.answer(&question, Verdict::Yes).await;
        bob.news.recv().await.unwrap()
    };
    let (offered, taken) = tokio::join!(ana.talker.offer(&name, file("a.txt")), accepting);
    let own = offered.unwrap();
    let OfferNews::Taken {
        offer, user, what, ..
    } = taken
    else {
        panic!("{taken:?}")
    };
    assert_eq!((user, what), (ana.user.clone(), file("a.txt")));
    assert!(bob.talker.tell_state(offer, 3, OfferState::Running));
    assert!(bob.talker.tell_state(offer, 5, OfferState::Done));
    for (done, state) in [(3, OfferState::Running), (5, OfferState::Done)] {
        let told = ana.news.recv().await.unwrap();
        let user = name.clone();
        let state = OfferNews::State {
            offer: own,
            user,
            done,
            state,
        };
        assert_eq!(told, state);
    }
    // One that is given up is asked about no longer.
    let giving_up = tokio::time::timeout(
        Duration::from_millis(500),
        ana.talker.offer(&name, file("b.txt")),
    );
    let (given_up, question) = tokio::join!(giving_up, bob.asked());
    assert!(given_up.is_err());
    let unasked = bob
        .event_that(|event| matches!(event, Event::Unasked(_)))
        .await;
    assert_eq!(unasked, Event::Unasked(question.id));
    ana.talker.disconnect(None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_begins_with_no_talk_is_served_as_a_transfer() {
    use crate::wire::transfer;
    let world = World::new();
    let (ana, bob) = (
        world.enter("ana", Accept::Ask),
        world.enter("bob", Accept::Ask),
    );
    let entry = world.names.lock().unwrap()["bob"].clone();
    let holder = Holder {
        user: entry.user,
        peer: entry.peer,
        len: 0,
        addresses: entry.addresses,
    };
    let (mut reader, mut writer) = dial(&ana.talker.0.membership, &holder).await.unwrap();
    let content = ContentId([7; 32]);
    let open = transfer::Frame::Open { file: 3, content };
    writer.send(&open).await.unwrap();
    let answer = reader.next().await.unwrap();
    assert_eq!(answer, Some(transfer::Frame::Absent { file: 3 }));
    assert!(bob.talker.questions().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_ends_the_talk_and_what_is_asked_and_is_not_lifted_by_an_older_question() {
    let world = World::new();
    let mut bob = world.enter("bob", Accept::Ask);
    let name = bob.user.clone();
    let [ana, carl] = ["ana", "carl"].map(|user| world.enter(user, Accept::Ask));
    let blocking = async {
        let question = bob.asked().await;
        bob.talker.block(question.key).await.unwrap();
        let unasked = bob
            .event_that(|event| matches!(event, Event::Unasked(_)))
            .await;
        assert_eq!(unasked, Event::Unasked(question.id));
    };
    let (refused, ()) = tokio::join!(ana.connect(&name), blocking);
    let no = TalkError::Refused(name.clone(), crate::wire::talk::Answer::No);
    assert_eq!(refused, Err(no.clone()));
    // Somebody edits what we know of a key while its question stands there.
    let too_late = async {
        let question = bob.asked().await;
        bob.people.block(question.key).unwrap();
        let answered = bob.talker.answer(question.id, Verdict::Always).await;
        assert!(matches!(answered, Err(PeopleError::Changed(_))));
    };
    let (refused, ()) = tokio::join!(carl.connect(&name), too_late);
    assert_eq!(refused, Err(no));
    let regard = bob.people.regard(&carl.user, carl.key);
    assert_eq!(regard, Regard::Blocked);
    assert!(bob.talker.questions().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_we_know_gets_in_while_the_tracker_knows_nobody() {
    let world = World::new();
    let (ana, bob) = (
        world.enter("ana", Accept::All),
        world.enter("bob", Accept::All),
    );
    let forget = |user: &UserName| world.names.lock().unwrap().remove(&user.folded());
    forget(&ana.user);
    let wrong = crate::wire::talk::Answer::WrongName;
    let refused = TalkError::Refused(bob.user.clone(), wrong);
    assert_eq!(ana.connect(&bob.user).await, Err(refused));
    let dora = world.enter("dora", Accept::All);
    bob.people.meet(&dora.user, dora.key);
    forget(&dora.user);
    assert_eq!(dora.connect(&bob.user).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_nothing_holds_no_connection_that_we_let_go_of() {
    let world = World::new();
    let ana = world.enter("ana", Accept::Ask);
    let ((reader, mut writer), _theirs) = connected().await;
    let long = Frame::Text {
        number: 1,
        to_all: false,
        text: "x".repeat(8192).parse().unwrap(),
    };
    let a_while = Duration::from_secs(1);
    while let Ok(sent) = tokio::time::timeout(a_while, writer.send_talk(&long)).await {
        sent.unwrap();
    }
    let tasks = TaskTracker::new();
    let link = Link::start(&ana.talker, LinkId(99), (reader, writer), &tasks);
    assert!(link.send(long));
    let start = tokio::time::Instant::now();
    drop(link);
    tasks.close();
    tasks.wait().await;
    // By a clock that goes on only when nothing else is left to do.
    assert!(start.elapsed() < Duration::from_secs(20));
}
