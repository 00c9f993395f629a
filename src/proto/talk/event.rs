//! What goes in and out of the machine of talks.

use std::time::Duration;

use crate::wire::id::PeerId;
use crate::wire::talk::{Answer, Frame, Offer, OfferAnswer, OfferState};
use crate::wire::text::{ChatText, UserName};

/// A connection, numbered by the driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// A question to the person here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QuestionId(pub u64);

/// An offer, ours or theirs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OfferId(pub u64);

/// Who is let in without a question, and who with one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Accept {
    /// Those whom we trust without a question, others with one.
    #[default]
    Ask,
    /// Those whom we trust, and nobody else.
    Trusted,
    /// Everybody, without a question.
    All,
    /// Nobody.
    None,
}

/// What we think of somebody who has this name and this key now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regard {
    /// Never met.
    Unknown,
    /// The name has the key that it always had.
    Met,
    /// The key is trusted.
    Trusted,
    /// The key is blocked, under whatever name.
    Blocked,
    /// The name was met with another key: somebody else, or the same person with a new one.
    OtherKey {
        /// The key that is known.
        known: PeerId,
    },
}

/// What the tracker says of the name that somebody gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Checked {
    /// It is that key's, and written so.
    Fits(UserName),
    /// It is another key's.
    WrongName,
    /// It is nobody's now.
    Nobody,
    /// Nothing now.
    Unknown,
}

/// What to find out for the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Reach this key; answered by `handle_dialled`.
    Dial(PeerId),
    /// Ask the tracker whose this name is; answered by `handle_checked`.
    Check {
        /// The connection that it is about.
        link: LinkId,
        /// The name that was given there.
        user: UserName,
    },
}

/// What to do with a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transmit {
    /// Send this.
    Send(LinkId, Frame),
    /// Say goodbye after what was sent.
    Finish(LinkId),
    /// Drop it.
    Abort(LinkId),
}

/// What the person here is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Its number.
    pub id: QuestionId,
    /// Who asks, by the name that the tracker vouches for.
    pub user: UserName,
    /// The key of whoever asks.
    pub key: PeerId,
    /// What for.
    pub kind: QuestionKind,
    /// How many questions wait behind it.
    pub more: usize,
}

/// What somebody wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QuestionKind {
    /// To talk.
    Talk,
    /// To send something; who says yes also agrees to talk.
    Offer(Offer),
}

/// An answer to a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// This time.
    Yes,
    /// Not now, and not for a while.
    No,
    /// This time and from now on: whoever answers so trusts the key.
    Always,
}

/// Somebody to whom we talk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Talk {
    /// Who.
    pub user: UserName,
    /// Under this key.
    pub key: PeerId,
    /// For how long.
    pub since: Duration,
    /// For how long nobody said anything.
    pub idle: Duration,
}

/// What became of a message that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// It was handed to the program that shows it.
    Delivered,
    /// They say that it was too much in a short time, and dropped it; another may come after this time.
    TooFast(Duration),
    /// Their program takes no more now, and dropped it.
    NotShown,
    /// The connection ended, or they were silent, before they said what became of it.
    Unknown,
}

/// Why there is no talk, or no offer, at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TalkRefusal {
    /// It is ourselves.
    Oneself,
    /// We blocked this key.
    Blocked,
    /// We know the name with another key.
    OtherKey {
        /// This one.
        known: PeerId,
    },
    /// As many talks, messages or offers are under way as may be.
    TooMany,
    /// There is no talk with this key.
    NotOpen,
}

/// Why a call came to nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallEnd {
    /// They said so.
    Refused(Answer),
    /// They said nothing in time.
    NoAnswer,
    /// No connection, or not for long enough; why.
    Unreachable(String),
    /// We want it no longer.
    Cancelled,
}

/// Why a talk ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// We ended it.
    Here,
    /// They did.
    There,
    /// The connection did; why.
    Broken(String),
}

/// Why an offer came to nothing, or is out of reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OfferEnd {
    /// They said so.
    Refused(OfferAnswer),
    /// They said nothing in time.
    NoAnswer,
    /// There was no talk for it.
    NoTalk(CallEnd),
    /// The talk ended: nothing more is heard of it.
    TalkEnded,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The person here is asked, one question at a time.
    Asked(Question),
    /// A question that was shown is moot: whoever asked is gone, or it was settled otherwise.
    Unasked(QuestionId),
    /// Somebody said something; answered by `handle_shown`.
    Said {
        /// Over this connection.
        link: LinkId,
        /// The message's number there.
        number: u32,
        /// Who.
        user: UserName,
        /// Under this key.
        key: PeerId,
        /// Others were told the same.
        to_all: bool,
        /// What.
        text: ChatText,
    },
    /// A talk began.
    Began {
        /// With whom.
        user: UserName,
        /// Under this key.
        key: PeerId,
        /// We asked for it.
        is_wanted: bool,
    },
    /// A talk ended.
    Ended {
        /// With whom.
        user: UserName,
        /// Under this key.
        key: PeerId,
        /// Why.
        end: End,
    },
    /// A call of ours came to nothing.
    CallFailed {
        /// To whom.
        key: PeerId,
        /// Why.
        why: CallEnd,
    },
    /// What became of a message of ours.
    Delivery {
        /// Over this connection.
        link: LinkId,
        /// The message's number there.
        number: u32,
        /// What became of it.
        delivery: Delivery,
    },
    /// A name that we know came with another key; told once in a while.
    OtherKey {
        /// The name.
        user: UserName,
        /// The key that we know.
        known: PeerId,
        /// The key that came.
        found: PeerId,
    },
    /// Somebody gave a name that is not his; told once in a while.
    WrongName {
        /// The name.
        user: UserName,
        /// The key that came.
        key: PeerId,
    },
    /// An offer of theirs was accepted, by the person here or without a question.
    OfferTaken {
        /// Its number.
        offer: OfferId,
        /// Whose.
        user: UserName,
        /// Under this key.
        key: PeerId,
        /// What it is.
        what: Offer,
    },
    /// An offer of ours was accepted.
    OfferAccepted(OfferId),
    /// An offer came to nothing, or is out of reach.
    OfferEnded {
        /// Its number.
        offer: OfferId,
        /// Why.
        why: OfferEnd,
    },
    /// How far the other side is with an accepted offer, ours or theirs.
    OfferState {
        /// Its number.
        offer: OfferId,
        /// Who says so.
        user: UserName,
        /// Bytes that are there.
        done: u64,
        /// What it does.
        state: OfferState,
    },
}
