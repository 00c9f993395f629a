//! The inside, peer and peer: what two people say to each other on a stream of their own.
//!
//! A connection whose first frame is CONNECT is a talk; any other is a transfer (`wire/transfer.rs`).
//! `docs/protocol.md` § Talk.

use serde::{Deserialize, Serialize};

use super::codec::{self, DecodeError};
use super::control::Publication;
use super::frame::{FRAME_HEAD_LEN, FrameHead};
use super::text::{ChatText, UserName};
use super::{CHAT_CLASS, MAX_CHAT_LEN};

const KIND_PING: u8 = 0x02;
const KIND_PONG: u8 = 0x03;
const KIND_CONNECT: u8 = 0x20;
const KIND_ANSWER: u8 = 0x21;
const KIND_TEXT: u8 = 0x22;
const KIND_RECEIVED: u8 = 0x23;
const KIND_OFFER: u8 = 0x24;
const KIND_OFFER_ANSWER: u8 = 0x25;
const KIND_OFFER_STATE: u8 = 0x26;

/// Bit of CONNECT's flags: an OFFER follows at once, and both are one question.
const FLAG_OFFERS: u8 = 1;
/// Bit of TEXT's flags: others were told the same.
const FLAG_TO_ALL: u8 = 1;
/// Bit of OFFER_STATE's flags: the number is that of an offer of whoever says this.
const FLAG_OWN: u8 = 1;

/// Largest plaintext of a frame of a talk, in bytes.
pub const MAX_TALK_LEN: usize = FRAME_HEAD_LEN + MAX_CHAT_LEN;

/// One frame of a talk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Is somebody there?
    Ping,
    /// Yes.
    Pong,
    /// Whoever dialled: may I talk to you?
    Connect {
        /// Who asks, by the name of his login.
        user: UserName,
        /// An offer follows, and is what it is for.
        offers: bool,
    },
    /// Whoever was dialled: the answer.
    Answer(Answer),
    /// A message.
    Text {
        /// Its number, which grows with each message of this direction.
        number: u32,
        /// Others were told the same.
        to_all: bool,
        /// The message.
        text: ChatText,
    },
    /// What became of a message.
    Received {
        /// Its number.
        number: u32,
        /// What became of it.
        receipt: Receipt,
    },
    /// A file or folder for the other side.
    Offer {
        /// Its number, which grows with each offer of this direction.
        number: u32,
        /// What it is.
        offer: Offer,
    },
    /// What the other side says to an offer.
    OfferAnswer {
        /// The offer's number.
        number: u32,
        /// What it says.
        answer: OfferAnswer,
    },
    /// How far the transfer of an offer is, or how it ended; from either side.
    OfferState {
        /// Whose offer it is, as seen from the one who says this.
        whose: Whose,
        /// The offer's number.
        number: u32,
        /// Bytes that are there.
        done: u64,
        /// What it does.
        state: OfferState,
    },
}

/// What is said to CONNECT. New answers are added at the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Yes.
    Yes,
    /// No.
    No,
    /// Nobody was there to say yes or no.
    Unanswered,
    /// Too many ask, or this one asks too often: later.
    Busy,
    /// Only those are let in whom this user trusts, or nobody.
    NotAccepting,
    /// This user knows the name with another key.
    OtherKey,
    /// The tracker knows the name with another key, or not at all.
    WrongName,
    /// The tracker cannot be asked about the name now.
    Unchecked,
    /// The two talk over another connection.
    Elsewhere,
}

/// What became of a message. New receipts are added at the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Receipt {
    /// It was handed to the program that shows it.
    Shown,
    /// Too many messages in a short time: it was dropped.
    TooFast {
        /// When another one may come, in ms.
        wait_ms: u32,
    },
    /// The program takes no more now: it was dropped.
    NotShown,
}

/// A file or folder for one person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// What is published for it: name, id, length and kind.
    pub publication: Publication,
    /// How many files a folder has; 1 for a file.
    pub files: u32,
    /// Bytes of the file, or of all files of the folder together.
    pub size: u64,
}

/// What is said to an offer. New answers are added at the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OfferAnswer {
    /// It will be fetched.
    Accepted,
    /// It will not.
    Denied,
    /// Too many offers wait for an answer: later.
    Busy,
    /// Only offers of those are taken whom this user trusts, or none.
    NotAccepting,
}

/// How the transfer of an offer does. New states are added at the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OfferState {
    /// It is under way.
    Running,
    /// All of it is there.
    Done,
    /// It ended without.
    Failed,
    /// Whoever fetched it wants it no longer.
    Cancelled,
    /// Whoever offered it takes it back.
    Withdrawn,
}

/// Whose offer a number means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Whose {
    /// Of the one who speaks.
    Own,
    /// Of the one who is spoken to.
    Yours,
}

/// Does a connection whose first frame is this one begin a talk?
#[must_use]
pub fn begins_talk(plaintext: &[u8]) -> bool {
    plaintext.first() == Some(&KIND_CONNECT)
}

impl Frame {
    /// Appends head and body to `out`, which has room for [`MAX_TALK_LEN`] bytes: a text leaves no copy
    /// behind.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let head = |kind, flags, id, offset| {
            FrameHead {
                kind,
                flags,
                id,
                offset,
            }
            .to_bytes()
        };
        match self {
            Self::Ping => out.extend(head(KIND_PING, 0, 0, 0)),
            Self::Pong => out.extend(head(KIND_PONG, 0, 0, 0)),
            Self::Connect { user, offers } => {
                let flags = if *offers { FLAG_OFFERS } else { 0 };
                out.extend(head(KIND_CONNECT, flags, 0, 0));
                codec::encode(user, out);
            }
            Self::Answer(answer) => {
                out.extend(head(KIND_ANSWER, 0, 0, 0));
                codec::encode(answer, out);
            }
            Self::Text {
                number,
                to_all,
                text,
            } => {
                let flags = if *to_all { FLAG_TO_ALL } else { 0 };
                let bytes = text.as_str().as_bytes();
                out.extend(head(KIND_TEXT, flags, *number, bytes.len() as u64));
                out.extend_from_slice(bytes);
                let padding = bytes.len().next_multiple_of(CHAT_CLASS) - bytes.len();
                out.resize(out.len() + padding, 0);
            }
            Self::Received { number, receipt } => {
                out.extend(head(KIND_RECEIVED, 0, *number, 0));
                codec::encode(receipt, out);
            }
            Self::Offer { number, offer } => {
                out.extend(head(KIND_OFFER, 0, *number, 0));
                codec::encode(offer, out);
            }
            Self::OfferAnswer { number, answer } => {
                out.extend(head(KIND_OFFER_ANSWER, 0, *number, 0));
                codec::encode(answer, out);
            }
            Self::OfferState {
                whose,
                number,
                done,
                state,
            } => {
                let flags = if *whose == Whose::Own { FLAG_OWN } else { 0 };
                out.extend(head(KIND_OFFER_STATE, flags, *number, *done));
                codec::encode(state, out);
            }
        }
    }

    /// Reads an opened plaintext.
    ///
    /// # Errors
    /// When it is no frame of this list.
    pub fn decode(plaintext: &[u8]) -> Result<Self, DecodeError> {
        let (head, body) = FrameHead::split(plaintext)?;
        let number = head.id;
        Ok(match head.kind {
            KIND_PING => Self::Ping,
            KIND_PONG => Self::Pong,
            KIND_CONNECT => Self::Connect {
                offers: has(head.flags, FLAG_OFFERS)?,
                user: codec::decode(body)?,
            },
            KIND_ANSWER => Self::Answer(codec::decode(body)?),
            KIND_TEXT => Self::Text {
                number,
                to_all: has(head.flags, FLAG_TO_ALL)?,
                text: text(head.offset, body)?,
            },
            KIND_RECEIVED => Self::Received {
                number,
                receipt: codec::decode(body)?,
            },
            KIND_OFFER => {
                let offer: Offer = codec::decode(body)?;
                if !offer.publication.kind.is_hashed() {
                    return Err(DecodeError("an offer of what is being hashed"));
                }
                Self::Offer { number, offer }
            }
            KIND_OFFER_ANSWER => Self::OfferAnswer {
                number,
                answer: codec::decode(body)?,
            },
            KIND_OFFER_STATE => Self::OfferState {
                whose: if has(head.flags, FLAG_OWN)? {
                    Whose::Own
                } else {
                    Whose::Yours
                },
                number,
                done: head.offset,
                state: codec::decode(body)?,
            },
            _ => return Err(DecodeError("frame kind of a talk")),
        })
    }
}

/// Is the only flag that a kind has set? Others are refused.
fn has(flags: u8, flag: u8) -> Result<bool, DecodeError> {
    match flags {
        0 => Ok(false),
        flags if flags == flag => Ok(true),
        _ => Err(DecodeError("flags of a talk's frame")),
    }
}

fn text(len: u64, body: &[u8]) -> Result<ChatText, DecodeError> {
    if body.len() > MAX_CHAT_LEN || !body.len().is_multiple_of(CHAT_CLASS) {
        return Err(DecodeError("padding of a message"));
    }
    let len = usize::try_from(len).map_err(|_| DecodeError("length of a message"))?;
    let (bytes, padding) = body
        .split_at_checked(len)
        .ok_or(DecodeError("length of a message"))?;
    if padding.len() >= CHAT_CLASS || padding.iter().any(|byte| *byte != 0) {
        return Err(DecodeError("padding of a message"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError("a message that is no text"))?;
    text.parse().map_err(|_| DecodeError("an empty message"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::control::PublicationKind;
    use crate::wire::id::ContentId;

    fn bytes_of(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    }

    fn text(text: &str) -> Frame {
        Frame::Text {
            number: 7,
            to_all: false,
            text: text.parse().unwrap(),
        }
    }

    #[test]
    fn a_message_says_little_by_its_length() {
        for (len, padded) in [(1, 256), (255, 256), (256, 256), (257, 512), (8192, 8192)] {
            let frame = text(&"x".repeat(len));
            let bytes = bytes_of(&frame);
            assert_eq!(bytes.len(), FRAME_HEAD_LEN + padded, "{len}");
            assert_eq!(Frame::decode(&bytes), Ok(frame));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let good = bytes_of(&text("hi"));
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            Frame::decode(&bytes)
        };
        assert!(changed(&|_| {}).is_ok());
        // Longer than what came, empty, unpadded, no text, an unknown flag, larger than a message may be.
        assert!(changed(&|bytes| bytes[14] = 2).is_err());
        assert!(changed(&|bytes| bytes[15] = 0).is_err());
        assert!(changed(&|bytes| bytes.truncate(18)).is_err());
        assert!(changed(&|bytes| bytes[16] = 0xff).is_err());
        // Padding that is no zero, or more than there must be.
        assert!(changed(&|bytes| bytes[18] = 1).is_err());
        assert!(changed(&|bytes| bytes.resize(FRAME_HEAD_LEN + 512, 0)).is_err());
        assert!(changed(&|bytes| bytes[1] = 2).is_err());
        assert!(changed(&|bytes| bytes.resize(FRAME_HEAD_LEN + 8192 + 256, 0)).is_err());
        // What is being hashed cannot be fetched, and so not be offered.
        let publication = Publication::being_hashed("x".parse().unwrap(), 1, PublicationKind::File);
        let offer = Offer {
            publication,
            files: 1,
            size: 1,
        };
        let frame = Frame::Offer { number: 1, offer };
        assert!(Frame::decode(&bytes_of(&frame)).is_err());
        // A transfer's frames are none of a talk's.
        let open = crate::wire::transfer::Frame::Open {
            file: 1,
            content: ContentId([7; 32]),
        };
        let mut bytes = Vec::new();
        open.encode(&mut bytes);
        assert!(Frame::decode(&bytes).is_err() && !begins_talk(&bytes));
    }

    proptest! {
        #[test]
        fn foreign_frames_never_panic(kind in 0_u8..0x30, rest: Vec<u8>) {
            let mut bytes = vec![kind, 0, 0, 0];
            bytes.extend(rest);
            let _ = Frame::decode(&bytes);
        }

        #[test]
        fn any_text_survives_the_wire(said in ".{1,2000}", number: u32, to_all: bool) {
            let frame = Frame::Text { number, to_all, text: said.parse().unwrap() };
            prop_assert_eq!(Frame::decode(&bytes_of(&frame)), Ok(frame));
        }

        #[test]
        fn states_and_answers_survive_the_wire(number: u32, done: u64, own: bool, choice in 0_usize..5) {
            use OfferState::{Cancelled, Done, Failed, Running, Withdrawn};
            let whose = if own { Whose::Own } else { Whose::Yours };
            let state = [Running, Done, Failed, Cancelled, Withdrawn][choice];
            let frame = Frame::OfferState { whose, number, done, state };
            prop_assert_eq!(Frame::decode(&bytes_of(&frame)), Ok(frame));
            let receipt = Receipt::TooFast { wait_ms: number };
            let frame = Frame::Received { number, receipt };
            prop_assert_eq!(Frame::decode(&bytes_of(&frame)), Ok(frame));
        }
    }
}
