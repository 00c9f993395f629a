//! What this screen knows of talks: who said something since we wrote, and which question stands on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::chronicle::Chronicle;
use super::identities::changed_key;
use super::render;
use super::screen::Screen;
use crate::peer::people::{People, Regard};
use crate::peer::{End, Event, Question, QuestionId, QuestionKind};
use crate::wire::id::PeerId;
use crate::wire::text::{ChatText, UserName};

/// A question is answered by its number of letters only when it has stood there for so long: what was typed
/// for the one before it must not be an answer to this one.
const TOO_NEW: Duration = Duration::from_millis(400);
/// The bell rings so often at most.
const BELL_EVERY: Duration = Duration::from_secs(1);
/// People whose messages are counted.
const MAX_UNREAD: usize = 1000;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Talking(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rings: bool,
    chronicle: Option<Chronicle>,
    state: Mutex<State>,
    /// Whoever speaks to one person waits for those who began before.
    turns: Mutex<HashMap<String, Turn>>,
}

/// The turn to speak to one person.
pub(super) type Turn = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug, Default)]
struct State {
    /// Messages since we wrote, by key.
    unread: HashMap<PeerId, u32>,
    shown: Option<Shown>,
    /// What stood there when the line that is typed was begun; nothing is typed yet without it.
    begun: Option<Begun>,
    rang: Option<Instant>,
}

/// The question that stands there.
#[derive(Clone, Debug)]
struct Shown {
    id: QuestionId,
    user: UserName,
    since: Instant,
}

/// What stood there when the first character of a line came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// No question.
    Alone,
    /// One that had only just come.
    TooNew(QuestionId),
    /// One that could have been read.
    Under(QuestionId),
}

impl State {
    fn stands(&self) -> Begun {
        match &self.shown {
            None => Begun::Alone,
            Some(shown) if shown.since.elapsed() < TOO_NEW => Begun::TooNew(shown.id),
            Some(shown) => Begun::Under(shown.id),
        }
    }
}

/// What an answer that names nobody means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Nobody asks.
    Nothing,
    /// This question.
    Question(QuestionId),
    /// One that has only just come: whoever typed may have meant another one.
    TooNew,
    /// Another one than stood there when the answer was begun.
    Changed,
}

impl Talking {
    /// Rings the bell, if it `rings`, and writes down what is said, where there is a chronicle.
    #[must_use]
    pub fn new(rings: bool, chronicle: Option<Chronicle>) -> Self {
        Self(Arc::new(Inner {
            rings,
            chronicle,
            state: Mutex::default(),
            turns: Mutex::default(),
        }))
    }

    /// The turn to speak to this user.
    #[must_use]
    pub(super) fn turn(&self, user: &UserName) -> Turn {
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(user.folded()).or_default())
    }

    /// Shows what happens in talks; `false` when it is something else.
    pub fn show(&self, event: &Event, screen: &Screen, people: &People) -> bool {
        match event {
            Event::Asked(question) => self.asked(screen, people, question),
            Event::Unasked(id) => self.unasked(screen, *id),
            Event::Said {
                user,
                key,
                to_all,
                text,
            } => self.said(screen, (user, *key), *to_all, text),
            Event::TalkBegan { user, key } => {
                let _ = screen.text(&render::talk_began(user));
                let _ = screen.object(&talk_json((user, *key), None));
            }
            Event::TalkEnded { user, key, end } => {
                let _ = screen.text(&render::talk_ended(user, end));
                let _ = screen.object(&talk_json((user, *key), Some(end)));
            }
            Event::OtherKey { user, known, found } => {
                let failure = changed_key(user, *known, *found);
                screen.note(&format!("! {}", failure.line()));
            }
            Event::WrongName { user, key } => {
                let print = key.fingerprint();
                screen.note(&format!(
                    "! somebody with the key {print} calls himself {user}, whom the tracker knows with another one"
                ));
            }
            _ => return false,
        }
        true
    }

    /// Shows what somebody said.
    fn said(
        &self,
        screen: &Screen,
        (user, key): (&UserName, PeerId),
        to_all: bool,
        text: &ChatText,
    ) {
        {
            let mut state = self.lock();
            if state.unread.len() < MAX_UNREAD || state.unread.contains_key(&key) {
                *state.unread.entry(key).or_default() += 1;
            }
        }
        let line = render::said(user, key, to_all, text.as_str(), screen.width());
        self.tell(screen, &line);
        let _ = screen.object(&json!({
            "v": 1, "type": "chat", "user": user.as_str(), "key": key.fingerprint().to_string(),
            "to_all": to_all, "text": text.as_str(),
        }));
        self.write_down(screen, &format!("<{user}>"), to_all, text);
    }

    /// Remembers what we said to one, or to all with whom we talk.
    pub fn wrote(&self, screen: &Screen, whom: Option<(&UserName, PeerId)>, text: &ChatText) {
        match whom {
            Some((user, key)) => {
                self.lock().unread.remove(&key);
                self.write_down(screen, &format!("-> {user}:"), false, text);
            }
            None => {
                self.lock().unread.clear();
                self.write_down(screen, "-> all:", false, text);
            }
        }
    }

    /// How many messages of this key came since we wrote to it.
    #[must_use]
    pub fn unread(&self, key: PeerId) -> u32 {
        self.lock().unread.get(&key).copied().unwrap_or(0)
    }

    /// Shows the question that is first now.
    pub fn asked(&self, screen: &Screen, people: &People, question: &Question) {
        {
            let mut state = self.lock();
            let again = state.shown.take_if(|shown| shown.id == question.id);
            state.shown = Some(again.unwrap_or_else(|| Shown {
                id: question.id,
                user: question.user.clone(),
                since: Instant::now(),
            }));
        }
        let line = asks(question, people, screen.width());
        self.tell(screen, &line);
        let _ = screen.object(&question_json(question));
    }

    /// The question of this number is moot.
    fn unasked(&self, screen: &Screen, id: QuestionId) {
        if let Some(Shown { user, .. }) = self.settled(id) {
            screen.note(&format!("! {user} waits for no answer any more"));
        }
    }

    /// The question of this number is answered.
    pub fn answered(&self, id: QuestionId) {
        let _ = self.settled(id);
    }

    /// It stands there no longer; what it was, if it did.
    fn settled(&self, id: QuestionId) -> Option<Shown> {
        self.lock().shown.take_if(|shown| shown.id == id)
    }

    /// The line that is typed now is this: an answer is meant for what stood there when it was begun.
    pub fn typed(&self, line: &str) {
        let mut state = self.lock();
        state.begun = match (line, state.begun) {
            ("", _) => None,
            (_, None) => Some(state.stands()),
            (_, begun) => begun,
        };
    }

    /// Was this question shown?
    #[must_use]
    pub fn has_shown(&self, question: &Question) -> bool {
        let state = self.lock();
        let shown = state.shown.as_ref();
        shown.is_some_and(|shown| shown.id == question.id)
    }

    /// The question that somebody answers who names nobody; at a terminal it must have stood there when
    /// the line was begun.
    #[must_use]
    pub fn pending(&self, first: Option<&Question>, is_typed: bool) -> Pending {
        let Some(first) = first else {
            return Pending::Nothing;
        };
        if !is_typed {
            return Pending::Question(first.id);
        }
        let state = self.lock();
        match (state.begun, state.begun.unwrap_or_else(|| state.stands())) {
            (_, Begun::Under(id)) if id == first.id => Pending::Question(id),
            (_, Begun::TooNew(id)) if id == first.id => Pending::TooNew,
            (None, _) => Pending::TooNew,
            (Some(_), _) => Pending::Changed,
        }
    }

    /// Shows a line that somebody should notice.
    fn tell(&self, screen: &Screen, line: &str) {
        let mut bell = "";
        if self.0.rings && screen.is_edited() {
            let mut state = self.lock();
            let now = Instant::now();
            let is_due = state
                .rang
                .is_none_or(|rang| now.duration_since(rang) >= BELL_EVERY);
            if is_due {
                state.rang = Some(now);
                bell = "\x07";
            }
        }
        let _ = screen.text(&format!("{bell}{line}"));
    }

    fn write_down(&self, screen: &Screen, who: &str, to_all: bool, text: &ChatText) {
        let Some(chronicle) = &self.0.chronicle else {
            return;
        };
        let all = if to_all { " (to all)" } else { "" };
        if let Some(line) = chronicle.add(&format!("{who}{all} {text}")) {
            screen.note(&line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question as a line.
fn asks(question: &Question, people: &People, width: Option<usize>) -> String {
    let Question {
        user,
        key,
        kind,
        more,
        ..
    } = question;
    let name = render::short_name(user, *key);
    let known = match people.regard(user, *key) {
        Regard::Trusted => "trusted",
        Regard::Met => "met before",
        Regard::Unknown | Regard::Blocked | Regard::OtherKey { .. } => "never met",
    };
    let what = match kind {
        QuestionKind::Talk => "wants to talk".to_owned(),
        QuestionKind::Offer(offer) => {
            let (file, size) = (&offer.publication, render::size(offer.size));
            let what = match file.kind.is_folder() {
                true => format!(
                    "{}, {}, {size}",
                    file.shown_name(),
                    render::counted(offer.files as usize, "file")
                ),
                false => format!("{}, {size}", file.shown_name()),
            };
            format!("wants to send {what}")
        }
    };
    let waiting = match more {
        0 => String::new(),
        more => format!(" ({more} more waiting)"),
    };
    let print = key.fingerprint().brief();
    let line = format!("{name} ({known}, key {print}) {what} (y/n/always) [n]{waiting}");
    render::rows("? ", &line, width).join("\n")
}

fn talk_json((user, key): (&UserName, PeerId), end: Option<&End>) -> serde_json::Value {
    let (state, reason) = match end {
        None => ("open", None),
        Some(End::Here) => ("closed", Some("ended here")),
        Some(End::There) => ("closed", Some("ended there")),
        Some(End::Broken(reason)) => ("closed", Some(reason.as_str())),
    };
    json!({
        "v": 1, "type": "talk", "user": user.as_str(), "key": key.fingerprint().to_string(),
        "state": state, "reason": reason,
    })
}

fn question_json(question: &Question) -> serde_json::Value {
    let mut object = json!({
        "v": 1, "type": "question", "user": question.user.as_str(),
        "key": question.key.fingerprint().to_string(), "kind": "talk", "more": question.more,
        "name": null, "size": null, "files": null, "id": null,
    });
    if let QuestionKind::Offer(offer) = &question.kind {
        object["kind"] = "offer".into();
        object["name"] = offer.publication.name.as_str().into();
        object["id"] = offer.publication.content.to_string().into();
        object["size"] = offer.size.into();
        object["files"] = offer.files.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::kdf::NetworkName;

    fn question(id: u64, more: usize) -> Question {
        Question {
            id: QuestionId(id),
            user: "vader".parse().unwrap(),
            key: PeerId([7; 32]),
            kind: QuestionKind::Talk,
            more,
        }
    }

    #[test]
    fn what_was_typed_for_one_question_answers_no_other() {
        let talking = Talking::default();
        let (first, second) = (question(1, 0), question(2, 0));
        assert_eq!(talking.pending(None, true), Pending::Nothing);
        let long_ago = Instant::now().checked_sub(TOO_NEW).unwrap();
        let shown = |question: &Question, since| {
            let (id, user) = (question.id, question.user.clone());
            Some(Shown { id, user, since })
        };
        talking.lock().shown = shown(&first, long_ago);
        assert_eq!(
            talking.pending(Some(&first), true),
            Pending::Question(first.id)
        );
        assert_eq!(talking.pending(Some(&second), true), Pending::TooNew);
        talking.lock().shown = shown(&second, Instant::now());
        assert_eq!(talking.pending(Some(&second), true), Pending::TooNew);
        // A script answers what there is.
        assert_eq!(
            talking.pending(Some(&second), false),
            Pending::Question(second.id)
        );
    }

    #[test]
    fn an_answer_is_meant_for_the_question_under_which_it_was_begun() {
        let talking = Talking::default();
        let (first, second) = (question(1, 0), question(2, 0));
        let long_ago = Instant::now().checked_sub(TOO_NEW).unwrap();
        let show = |question: &Question, since| {
            let (id, user) = (question.id, question.user.clone());
            talking.lock().shown = Some(Shown { id, user, since });
        };
        let pending = |question: &Question| talking.pending(Some(question), true);
        show(&first, long_ago);
        talking.typed("a");
        talking.typed("always");
        assert_eq!(pending(&first), Pending::Question(first.id));
        // The other one has stood there for long, too.
        show(&second, long_ago);
        talking.typed("always");
        assert_eq!(pending(&second), Pending::Changed);
        let by_script = talking.pending(Some(&second), false);
        assert_eq!(by_script, Pending::Question(second.id));
        // An empty line is begun anew.
        talking.typed("");
        assert_eq!(pending(&second), Pending::Question(second.id));
        talking.typed("y");
        assert_eq!(pending(&second), Pending::Question(second.id));
        talking.typed("");
        // Nobody reads so fast what has only just come.
        show(&first, Instant::now());
        talking.typed("y");
        show(&first, long_ago);
        assert_eq!(pending(&first), Pending::TooNew);
        // Nor was there anything to answer when nobody asked.
        talking.typed("");
        talking.lock().shown = None;
        talking.typed("y");
        show(&first, long_ago);
        assert_eq!(pending(&first), Pending::Changed);
    }

    #[test]
    fn who_waits_no_longer_is_told_only_when_nobody_answered() {
        let talking = Talking::default();
        let (id, user) = (QuestionId(1), question(1, 0).user);
        let since = Instant::now();
        let shown = Shown { id, user, since };
        talking.lock().shown = Some(shown.clone());
        talking.answered(id);
        assert!(talking.settled(id).is_none());
        talking.lock().shown = Some(shown);
        assert!(talking.settled(QuestionId(2)).is_none());
        assert_eq!(talking.settled(id).unwrap().user.as_str(), "vader");
    }

    #[test]
    fn a_question_says_who_asks_and_how_many_wait() {
        let people = People::open(None, NetworkName::default()).unwrap();
        let line = asks(&question(1, 0), &people, Some(100));
        let print = PeerId([7; 32]).fingerprint().brief();
        let wanted = format!("? vader (never met, key {print}) wants to talk (y/n/always) [n]");
        assert_eq!(line, wanted);
        people.meet(&"vader".parse().unwrap(), PeerId([7; 32]));
        let line = asks(&question(1, 2), &people, None);
        assert!(
            line.contains("met before") && line.ends_with("(2 more waiting)"),
            "{line}"
        );
    }
}
