//! Passphrases that are made, rated, and checked for slips.

use std::fmt;

use bip39::Language;
use rand::seq::IndexedRandom as _;
use zeroize::Zeroizing;

use crate::crypto::secret::Passphrase;
use crate::nearest::nearest;
use crate::wire::password::Password;
use crate::wire::text::UserName;

/// Words of a passphrase that is made for somebody: 66 bits.
pub const WORDS: usize = 6;
/// From so many words on a passphrase is taken for one that was made here.
const MIN_CHECKED_WORDS: usize = 4;
/// zxcvbn's scores go from 0 to 4.
const MIN_SCORE: u8 = 3;

/// A passphrase of so many words out of 2048.
#[must_use]
pub fn generate(words: usize) -> Zeroizing<String> {
    let list = Language::English.word_list();
    // Drawn by the thread's generator, which the system seeds and which is fit for keys.
    let mut random = rand::rng();
    let mut text = Zeroizing::new(String::with_capacity(words * 9));
    for number in 0..words {
        if number > 0 {
            text.push(' ');
        }
        text.push_str(list.choose(&mut random).copied().unwrap_or_default());
    }
    text
}

/// The words at these places of the list.
#[must_use]
pub fn words_at(places: &[u16]) -> Vec<&'static str> {
    let list = Language::English.word_list();
    let places = places.iter().map(|place| usize::from(*place) % list.len());
    places.map(|place| list[place]).collect()
}

/// How hard a passphrase is to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rating {
    /// From 0, guessed at once, to 4.
    pub score: u8,
    /// The power of ten of the guesses that it takes.
    pub guesses_log10: u32,
}

impl Rating {
    /// Good enough for a tracker, where guesses are slow and counted.
    #[must_use]
    pub const fn is_enough(self) -> bool {
        self.score >= MIN_SCORE
    }
}

impl fmt::Display for Rating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_enough() {
            "good enough"
        } else {
            "can be guessed"
        };
        write!(
            f,
            "{verdict}: score {} of 4, about 10^{} guesses",
            self.score, self.guesses_log10
        )
    }
}

/// Rates `passphrase`.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a logarithm between 0 and 400"
)]
pub fn rate(passphrase: &Passphrase) -> Rating {
    let entropy = zxcvbn::zxcvbn(passphrase.expose(), &[]);
    Rating {
        score: u8::from(entropy.score()),
        guesses_log10: entropy.guesses_log10().max(0.0) as u32,
    }
}

/// Rates a user's password; the name in it makes it worse.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a logarithm between 0 and 400"
)]
pub fn rate_password(password: &Password, user: &UserName) -> Rating {
    let entropy = zxcvbn::zxcvbn(password.expose(), &[user.as_str()]);
    Rating {
        score: u8::from(entropy.score()),
        guesses_log10: entropy.guesses_log10().max(0.0) as u32,
    }
}

/// A word that is probably a slip, and what was probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slip {
    /// As typed.
    pub typed: String,
    /// From the list.
    pub meant: Option<String>,
    /// Sure enough to refuse it where nobody can be asked: six words or more, all others right.
    pub is_sure: bool,
}

/// Looks for a slip in what seems to be a passphrase made here: all its words but one are in the
/// list, or but two of six or more.
#[must_use]
pub fn find_slip(passphrase: &Passphrase) -> Option<Slip> {
    let list = Language::English.word_list();
    let words: Vec<&str> = passphrase.expose().split(' ').collect();
    let unknown: Vec<&&str> = words.iter().filter(|word| !list.contains(*word)).collect();
    // Two strangers among four words are a sentence, not two slips.
    let most = if words.len() >= WORDS { 2 } else { 1 };
    let slip = unknown.first()?;
    if words.len() < MIN_CHECKED_WORDS || unknown.len() > most {
        return None;
    }
    let meant = nearest(&slip.to_lowercase(), list.iter().copied()).map(str::to_owned);
    Some(Slip {
        typed: (**slip).to_owned(),
        meant,
        is_sure: unknown.len() == 1 && words.len() >= WORDS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_words() {
        let words = words_at(&[1067, 88, 1087, 133, 641, 147, 491, 1738]);
        assert_eq!(
            words.join(" "),
            "lyrics arch margin awful expand bar dice sun"
        );
        assert_eq!(words_at(&[0, 2047, 2048]), ["abandon", "zoo", "abandon"]);
    }

    fn parse(text: &str) -> Passphrase {
        Passphrase::parse(text).unwrap()
    }

    #[test]
    fn made_passphrases_are_strong_and_differ() {
        let (one, two) = (generate(WORDS), generate(WORDS));
        assert_ne!(one, two);
        assert_eq!(one.split(' ').count(), 6);
        assert!(rate(&parse(&one)).is_enough());
        assert_eq!(find_slip(&parse(&one)), None);
        assert_eq!(Language::English.word_list().len(), 2048);
    }

    #[test]
    fn weak_ones_are_noticed() {
        for weak in ["password", "12345678", "qwertyuiop", "hans2024"] {
            assert!(!rate(&parse(weak)).is_enough(), "{weak}");
        }
    }

    #[test]
    fn a_slip_in_a_made_passphrase_is_named() {
        let slip = |text: &str| find_slip(&parse(text)).map(|slip| (slip.typed, slip.meant));
        let named = |typed: &str, meant: &str| Some((typed.to_owned(), Some(meant.to_owned())));
        assert_eq!(
            slip("horse stbale battle abandon zebra zoo"),
            named("stbale", "stable")
        );
        assert_eq!(
            slip("abandon ability able about above Absent"),
            named("Absent", "absent")
        );
        assert_eq!(
            slip("my own long sentence of words"),
            None,
            "not one of ours"
        );
        assert_eq!(slip("zoo zebra xx"), None, "too short to tell");
        assert_eq!(
            slip("abandon ability xx yy"),
            None,
            "two of four are no slips"
        );
        let sure = |text: &str| find_slip(&parse(text)).map(|slip| slip.is_sure);
        assert_eq!(sure("abandon ability able about above absnt"), Some(true));
        assert_eq!(sure("abandon ability able about abve absnt"), Some(false));
        assert_eq!(sure("abandon ability able abot"), Some(false));
    }
}
