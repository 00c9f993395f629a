//! Why somebody was not talked to, as one line.

use std::time::Duration;

use crate::peer::event::RequestError;
use crate::proto::talk::{CallEnd, OfferEnd, TalkRefusal};
use crate::wire::id::{Fingerprint, PeerId};
use crate::wire::talk::{Answer, OfferAnswer};
use crate::wire::text::UserName;

/// Why there is no talk, or nothing came of an offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TalkError {
    /// Nobody of that name is here.
    #[error("{0} is not here")]
    NotHere(UserName),
    /// The tracker cannot say who that is.
    #[error(transparent)]
    Tracker(#[from] RequestError),
    /// It is our own name.
    #[error("that is you")]
    Oneself,
    /// We blocked the key.
    #[error("{0} is blocked; unblock {0} first")]
    Blocked(UserName),
    /// We know the name with another key.
    #[error(
        "{user} has another key than before: it was {known}, and is {found} now; verify it with {user}, then trust it"
    )]
    OtherKey {
        /// The name.
        user: UserName,
        /// What we know.
        known: Fingerprint,
        /// What the tracker names now.
        found: Fingerprint,
    },
    /// They said no, or something that amounts to it.
    #[error("{}", refusal(.0, *.1))]
    Refused(UserName, Answer),
    /// They said nothing in time.
    #[error("{0} does not answer")]
    NoAnswer(UserName),
    /// There is no connection.
    #[error("cannot reach {0}: {1}")]
    Unreachable(UserName, String),
    /// It was given up here.
    #[error("given up")]
    Cancelled,
    /// There is no talk, and none was asked for.
    #[error("you do not talk to {0}")]
    NotOpen(UserName),
    /// So many are under way that one more makes no sense.
    #[error("too much at a time: wait until something of it is done")]
    TooMany,
    /// They do not take an offer.
    #[error("{}", offer_refusal(.0, *.1))]
    OfferRefused(UserName, OfferAnswer),
    /// The talk ended before they said anything to an offer.
    #[error("the talk with {0} ended before the offer was answered")]
    OfferLost(UserName),
    /// This peer is leaving.
    #[error("this peer is leaving")]
    Leaving,
}

impl TalkError {
    /// Why nothing can be asked of `user`, whose key is `found`.
    #[must_use]
    pub fn refused(user: &UserName, found: &PeerId, refusal: TalkRefusal) -> Self {
        let user = user.clone();
        match refusal {
            TalkRefusal::Oneself => Self::Oneself,
            TalkRefusal::Blocked => Self::Blocked(user),
            TalkRefusal::OtherKey { known } => Self::OtherKey {
                user,
                known: known.fingerprint(),
                found: found.fingerprint(),
            },
            TalkRefusal::TooMany => Self::TooMany,
            TalkRefusal::NotOpen => Self::NotOpen(user),
        }
    }

    /// What became of a call to `user`.
    #[must_use]
    pub fn of_call(user: &UserName, why: &CallEnd) -> Self {
        let user = user.clone();
        match why {
            CallEnd::Refused(answer) => Self::Refused(user, *answer),
            CallEnd::NoAnswer => Self::NoAnswer(user),
            CallEnd::Unreachable(reason) => Self::Unreachable(user, reason.clone()),
            CallEnd::Cancelled => Self::Cancelled,
        }
    }

    /// What became of an offer to `user`.
    #[must_use]
    pub fn of_offer(user: &UserName, why: &OfferEnd) -> Self {
        match why {
            OfferEnd::Refused(answer) => Self::OfferRefused(user.clone(), *answer),
            OfferEnd::NoAnswer => Self::NoAnswer(user.clone()),
            OfferEnd::NoTalk(why) => Self::of_call(user, why),
            OfferEnd::TalkEnded => Self::OfferLost(user.clone()),
        }
    }

    /// When it makes sense to try again, if the tracker said so.
    #[must_use]
    pub const fn wait(&self) -> Option<Duration> {
        match self {
            Self::Tracker(RequestError::TooFast(wait)) => Some(*wait),
            _ => None,
        }
    }
}

fn refusal(user: &UserName, answer: Answer) -> String {
    match answer {
        Answer::Yes | Answer::No => format!("{user} does not want to talk now"),
        Answer::Unanswered => format!("{user} was asked, and nobody answered"),
        Answer::Busy | Answer::Elsewhere => {
            format!("{user} is asked too much now: try again in a minute")
        }
        Answer::NotAccepting => format!("{user} takes only people whom they trust, or nobody"),
        Answer::OtherKey => format!(
            "{user} knows your name with another key: they must verify and trust the one you have now"
        ),
        Answer::WrongName => {
            format!("the tracker of {user} does not know you by your name: is it yours?")
        }
        Answer::Unchecked => format!(
            "the peer of {user} cannot ask its tracker who you are: try again when it is back"
        ),
    }
}

fn offer_refusal(user: &UserName, answer: OfferAnswer) -> String {
    match answer {
        OfferAnswer::Accepted | OfferAnswer::Denied => format!("{user} does not want it"),
        OfferAnswer::Busy => format!("{user} has too many offers to answer: try again later"),
        OfferAnswer::NotAccepting => {
            format!("{user} takes offers only of people whom they trust, or of nobody")
        }
    }
}
