//! Commands of chat: connect, disconnect, msg, all, who, and the answers to those who ask.

use std::time::Duration;

use serde_json::{Value, json};

use super::Context;
use super::args::MsgArgs;
use super::command::Command;
use super::executor::{Executor, parse_user};
use super::exit::{Class, Failure};
use super::render;
use super::table::{Column, table};
use super::talking::Pending;
use crate::peer::people::Regard;
use crate::peer::{Delivery, End, Question, Talk, TalkError, Verdict};
use crate::wire::MAX_CHAT_LEN;
use crate::wire::control::PeerEntry;
use crate::wire::id::PeerId;
use crate::wire::text::{ChatText, UserName};

/// How long somebody has to agree to a talk, unless another time was given.
const PATIENCE: Duration = Duration::from_secs(60);

impl Context {
    pub(super) async fn msg(&self, args: MsgArgs) -> Result<(), Failure> {
        let MsgArgs {
            mut words,
            all,
            wait,
            once,
        } = args;
        if all {
            return self.steer(Command::Everybody { text: words }).await;
        }
        let user = words.remove(0);
        if words.is_empty() {
            let failure = Failure::usage(format!("what to say to {user} is missing"));
            return Err(failure.hint("p2pfs msg USER TEXT, or p2pfs msg --all TEXT"));
        }
        let text = words;
        self.once(&once, Command::Msg { user, text, wait }).await
    }
}

impl Executor {
    /// Asks somebody for a talk, until the time is over.
    pub(super) async fn connect(&self, user: &str, wait: Option<Duration>) -> Result<(), Failure> {
        let user = self.other(user)?;
        let talks = self.peer.talks();
        let is_old = talks.iter().any(|talk| talk.user.folded() == user.folded());
        let talk = self.reach(&user, wait).await?;
        // A new talk is told to whoever sits here, whoever began it.
        if is_old || self.screen.is_client() {
            self.screen.text(&render::talk_began(&talk.user))?;
        }
        self.screen.object(&result("connect", &talk.user, talk.key))
    }

    /// A talk with this user, who is asked again and again for so long.
    async fn reach(&self, user: &UserName, wait: Option<Duration>) -> Result<Talk, Failure> {
        let calling = async {
            loop {
                match self.peer.connect(user).await {
                    Err(TalkError::NoAnswer(_)) => {}
                    reached => return reached,
                }
            }
        };
        match tokio::time::timeout(wait.unwrap_or(PATIENCE), calling).await {
            Ok(reached) => reached?,
            Err(_) => return Err(unanswered(user)),
        }
        let talks = self.peer.talks().into_iter();
        let mut own = talks.filter(|talk| talk.user.folded() == user.folded());
        own.next()
            .ok_or_else(|| TalkError::NotOpen(user.clone()).into())
    }

    /// Ends the talk with somebody, or all talks.
    pub(super) fn disconnect(&self, user: Option<&str>) -> Result<(), Failure> {
        let user = user.map(parse_user).transpose()?;
        let talks = self.peer.talks();
        let ended = self.peer.disconnect(user.as_ref());
        if ended.is_empty() {
            let line = match user {
                Some(user) => format!("you do not talk with {user}"),
                None => "you talk with nobody".to_owned(),
            };
            return Err(Failure::new(Class::NotFound, line));
        }
        for Talk { user, key, .. } in talks.iter().filter(|talk| ended.contains(&talk.user)) {
            if self.screen.is_client() {
                self.screen.text(&render::talk_ended(user, &End::Here))?;
            }
            self.screen.object(&result("disconnect", user, *key))?;
        }
        Ok(())
    }

    /// Says something to somebody, who is asked for a talk first where there is none.
    pub(super) async fn msg(
        &self,
        user: &str,
        text: &[String],
        wait: Option<Duration>,
    ) -> Result<(), Failure> {
        let text = chat_text(text)?;
        let user = self.other(user)?;
        // What is said to one person arrives in the order in which it was said.
        let turn = self.talking.turn(&user);
        let _turn = turn.lock().await;
        let Talk { user, key, .. } = self.reach(&user, wait).await?;
        let delivery = self.peer.say(&user, text.clone()).await?;
        self.talking.wrote(&self.screen, Some((&user, key)), &text);
        self.delivered(&user, key, delivery)?.map_or(Ok(()), Err)
    }

    /// Says something to everybody with whom we talk.
    pub(super) async fn all(&self, text: &[String]) -> Result<(), Failure> {
        let text = chat_text(text)?;
        let talks = self.peer.talks();
        if talks.is_empty() {
            let failure = Failure::new(Class::NotFound, "you talk with nobody");
            return Err(failure.hint("connect USER begins"));
        }
        self.talking.wrote(&self.screen, None, &text);
        let said = self.peer.say_all(text).await;
        let (mut failures, count) = (Vec::new(), said.len());
        for (user, delivery) in said {
            let key = talks.iter().find(|talk| talk.user == user);
            match (delivery, key) {
                (Ok(delivery), Some(talk)) => {
                    failures.extend(self.delivered(&user, talk.key, delivery)?);
                }
                (Ok(_), None) => {}
                (Err(error), _) => failures.push(error.into()),
            }
        }
        self.conclude(count, failures)
    }

    /// Tells what became of a message; what did not arrive is a failure.
    fn delivered(
        &self,
        user: &UserName,
        key: PeerId,
        delivery: Delivery,
    ) -> Result<Option<Failure>, Failure> {
        let (state, wait) = match delivery {
            Delivery::Delivered => ("delivered", None),
            Delivery::TooFast(wait) => ("too fast", Some(wait)),
            Delivery::NotShown => ("not shown", None),
            Delivery::Unknown => ("unknown", None),
        };
        self.screen.object(&json!({
            "v": 1, "type": "delivery", "user": user.as_str(),
            "key": key.fingerprint().to_string(), "state": state,
            "wait_s": wait.map(|wait| wait.as_secs_f64()),
        }))?;
        let (class, line) = match delivery {
            Delivery::Delivered => {
                self.screen.text(&format!("delivered to {user}"))?;
                return Ok(None);
            }
            Delivery::TooFast(wait) => (
                Class::Refused,
                format!(
                    "{user} dropped it: too much at a time, wait {:.1} s",
                    wait.as_secs_f64()
                ),
            ),
            Delivery::NotShown => (
                Class::Refused,
                format!("{user} dropped it: nothing is shown there now"),
            ),
            Delivery::Unknown => (
                Class::Network,
                format!("it is not known whether it reached {user}"),
            ),
        };
        Ok(Some(Failure::new(class, line)))
    }

    /// Enter on an empty line: no, where a question stands.
    pub(super) async fn enter_alone(&self) -> Result<(), Failure> {
        let questions = self.peer.questions();
        match self.talking.pending(questions.first(), true) {
            Pending::Nothing => Ok(()),
            _ => self.answer(None, Verdict::No).await,
        }
    }

    /// Answers whoever asks: the question that stands there, or the first one of somebody.
    pub(super) async fn answer(&self, user: Option<&str>, verdict: Verdict) -> Result<(), Failure> {
        let questions = self.peer.questions();
        let question = match user {
            Some(user) => {
                let user = parse_user(user)?;
                let mut own = questions
                    .iter()
                    .filter(|it| it.user.folded() == user.folded());
                let missing = || Failure::new(Class::NotFound, format!("{user} asks nothing"));
                own.next().ok_or_else(missing)?
            }
            None => {
                let is_typed = self.screen.is_edited();
                match (
                    self.talking.pending(questions.first(), is_typed),
                    questions.first(),
                ) {
                    (Pending::Question(_), Some(first)) => first,
                    (Pending::TooNew, Some(first)) => {
                        if !self.talking.has_shown(first) {
                            let people = self.peer.people();
                            self.talking.asked(&self.screen, people, first);
                        }
                        let line = "that question has only just come";
                        return Err(Failure::usage(line).hint("answer once more if it is meant"));
                    }
                    (Pending::Changed, Some(first)) => {
                        let people = self.peer.people();
                        self.talking.asked(&self.screen, people, first);
                        let line = "nothing was answered: that question came while you typed";
                        return Err(Failure::usage(line).hint("answer once more if it is meant"));
                    }
                    _ => return Err(Failure::new(Class::NotFound, "nobody asks anything")),
                }
            }
        };
        self.settle(question, verdict).await
    }

    async fn settle(&self, question: &Question, verdict: Verdict) -> Result<(), Failure> {
        let (user, key) = (&question.user, question.key);
        if !self.peer.answer(question.id, verdict).await? {
            let line = format!("{user} does not wait for an answer any more");
            return Err(Failure::new(Class::NotFound, line));
        }
        self.talking.answered(question.id);
        let (command, line) = match verdict {
            Verdict::No => ("deny", format!("You said no to {user}")),
            Verdict::Yes => ("accept", String::new()),
            Verdict::Always => (
                "accept",
                format!("You trust {user}, key {}", key.fingerprint()),
            ),
        };
        if !line.is_empty() {
            self.screen.text(&line)?;
        }
        self.screen.object(&result(command, user, key))
    }

    /// Who is here, how they stand, and with whom we talk.
    pub(super) async fn who(&self) -> Result<(), Failure> {
        let mut here = self.peer.peers().await?;
        here.sort_by_cached_key(|entry| entry.user.folded());
        let talks = self.peer.talks();
        let mut rows = Vec::new();
        for entry in &here {
            self.seen.user(&entry.user);
            let talk = talks.iter().find(|talk| talk.key == entry.peer);
            let (standing, unread) = (self.standing(entry), self.talking.unread(entry.peer));
            let via = render::ways(&entry.addresses);
            self.screen.object(&member(entry, standing, talk, unread))?;
            rows.push(vec![
                render::short_name(&entry.user, entry.peer),
                standing.to_owned(),
                via.to_owned(),
                talk.map_or_else(String::new, |talk| {
                    format!("talking, idle {}", render::ago(talk.idle))
                }),
                match unread {
                    0 => String::new(),
                    unread => format!("{unread} new"),
                },
            ]);
        }
        let columns = [
            Column::cut("USER", 0),
            Column::whole("STANDING", 3),
            Column::whole("VIA", 4),
            Column::whole("TALK", 2),
            Column::whole("UNREAD", 1),
        ];
        self.screen
            .text(&table(&columns, &rows, self.screen.width()))
    }

    fn standing(&self, entry: &PeerEntry) -> &'static str {
        if entry.peer == self.peer.id() {
            return "you";
        }
        match self.peer.people().regard(&entry.user, entry.peer) {
            Regard::Unknown => "new",
            Regard::Met => "met",
            Regard::Trusted => "trusted",
            Regard::Blocked => "blocked",
            Regard::OtherKey { .. } => "other key",
        }
    }
}

fn unanswered(user: &UserName) -> Failure {
    let failure = Failure::new(Class::Network, format!("{user} did not answer"));
    failure.hint("--wait TIME waits longer")
}

/// What is said, as one text.
fn chat_text(words: &[String]) -> Result<ChatText, Failure> {
    let text = words.join(" ");
    if text.is_empty() {
        return Err(Failure::usage(
            "a message needs a text, and this one is empty",
        ));
    }
    text.parse().map_err(|_| {
        Failure::usage(format!(
            "a message has 1 to {MAX_CHAT_LEN} bytes, and this one {}",
            text.len()
        ))
        .hint("share it as a file")
    })
}

fn result(command: &str, user: &UserName, key: PeerId) -> Value {
    json!({
        "v": 1, "type": "result", "command": command, "ok": true, "user": user.as_str(),
        "key": key.fingerprint().to_string(),
    })
}

fn member(entry: &PeerEntry, standing: &str, talk: Option<&Talk>, unread: u32) -> Value {
    json!({
        "v": 1, "type": "member", "user": entry.user.as_str(),
        "key": entry.peer.fingerprint().to_string(), "standing": standing,
        "via": render::ways(&entry.addresses), "talking": talk.is_some(),
        "idle_s": talk.map(|talk| talk.idle.as_secs()), "unread": unread,
        "addresses": entry.addresses,
    })
}
