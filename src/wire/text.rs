//! Foreign text, checked once at the door: user names, file names, and how any text is shown.
//!
//! What is parsed here is safe to compare, to index and, through `Display`, to print: a name cannot
//! forge a line, move the cursor or turn the reading direction.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use icu_normalizer::properties::CanonicalCombiningClassMapBorrowed;
use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use serde::{Deserialize, Serialize};
use unicode_width::UnicodeWidthChar as _;
use zeroize::Zeroizing;

use super::MAX_CHAT_LEN;

/// Why a text is not a name. The words complete "the name …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters at all.
    #[error("is empty")]
    Empty,
    /// More bytes than the limit, which is given.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// A character that this kind of name may not hold.
    #[error("holds {0:?}, which is not allowed there")]
    Character(char),
    /// A name that a file system gives a meaning of its own: `.` or `..`.
    #[error("is a directory's own name")]
    Dots,
}

/// The canonical composition (NFC) of `text`: equal to the eye, equal in bytes.
#[must_use]
pub fn nfc(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc()
        .normalize(text)
        .into_owned()
}

/// Who is logged in: letters and digits of any script, with `.`, `_`, `-` and `+` inside.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

impl UserName {
    /// Longest user name, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Equal for names that differ in case only: two such people would be taken for one.
    #[must_use]
    pub fn folded(&self) -> String {
        fold(&self.0)
    }
}

impl FromStr for UserName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = nfc(text);
        let first = name.chars().next().ok_or(NameError::Empty)?;
        if name.len() > Self::MAX_LEN {
            return Err(NameError::TooLong(Self::MAX_LEN));
        }
        // A leading mark would read as an option, a hidden file or a command.
        if !first.is_alphanumeric() {
            return Err(NameError::Character(first));
        }
        match name
            .chars()
            .find(|c| !c.is_alphanumeric() && !"._-+".contains(*c))
        {
            Some(wrong) => Err(NameError::Character(wrong)),
            None => Ok(Self(name)),
        }
    }
}

/// The name of a shared file: one component of a path, never a way to another place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// Longest file name, in bytes.
    pub const MAX_LEN: usize = 255;

    /// The name as text: neither empty, nor a path, nor with control characters; but not yet safe to
    /// print (use `Display`) or to create a file with (that is `disk`'s).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name under which a local file is offered: what no name may hold becomes `_`, what is too
    /// long loses its middle. `None` when nothing is left.
    #[must_use]
    pub fn from_local(name: &str) -> Option<Self> {
        let cleaned: String = nfc(name)
            .chars()
            .map(|c| {
                if is_forbidden_in_file_names(c) {
                    '_'
                } else {
                    c
                }
            })
            .collect();
        shorten_bytes(&cleaned, Self::MAX_LEN).parse().ok()
    }
}

impl FromStr for FileName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(NameError::TooLong(Self::MAX_LEN));
        }
        if text == "." || text == ".." {
            return Err(NameError::Dots);
        }
        match text.chars().find(|c| is_forbidden_in_file_names(*c)) {
            Some(wrong) => Err(NameError::Character(wrong)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

fn is_forbidden_in_file_names(c: char) -> bool {
    c == '/' || c.is_control()
}

macro_rules! name_traits {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&safe(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}
name_traits!(UserName);
name_traits!(FileName);

/// Why a text is no chat message. The words complete "the message …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// No characters at all.
    #[error("is empty")]
    Empty,
    /// More bytes than a message may have.
    #[error("is longer than {MAX_CHAT_LEN} bytes")]
    TooLong,
}

/// What one person says to another: 1 to [`MAX_CHAT_LEN`] bytes of UTF-8, wiped when dropped. It may hold any
/// character, line ends too; `Display` escapes those that act on a terminal, so that it is always one line.
#[derive(Clone, PartialEq, Eq)]
pub struct ChatText(Zeroizing<String>);

impl ChatText {
    /// The text as it was typed; not yet safe to print (use `Display`).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ChatText {
    type Err = ChatError;
    fn from_str(text: &str) -> Result<Self, ChatError> {
        match text.len() {
            0 => Err(ChatError::Empty),
            len if len > MAX_CHAT_LEN => Err(ChatError::TooLong),
            _ => Ok(Self(Zeroizing::new(text.to_owned()))),
        }
    }
}

impl fmt::Display for ChatText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&Zeroizing::new(safe(&self.0)))
    }
}

/// Its length only: what people say to each other is in no log.
impl fmt::Debug for ChatText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatText({} bytes)", self.0.len())
    }
}

/// Text as it may be shown: control characters, those that turn the reading direction, and those that show as
/// nothing, as a common space, or as whatever a font likes are escaped; so are accents beyond the eighth on one letter.
/// Everything that came from outside passes through here on its way to a terminal, a page or a log.
#[must_use]
pub fn safe(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut marks = Marks::default();
    for c in text.chars() {
        if marks.are_too_many_with(c) || c.is_control() || is_invisible(c) || is_unclear(c) {
            for escaped in c.escape_default() {
                shown.push(escaped);
            }
        } else {
            let _ = shown.write_char(c);
        }
    }
    shown
}

/// The same for the text of a JSON object, which stays one: escapes are JSON's.
#[must_use]
pub fn safe_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    let mut marks = Marks::default();
    for c in json.chars() {
        if marks.are_too_many_with(c) || c.is_control() || is_invisible(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// How many characters in a row have no width of their own, as accents have none.
#[derive(Default)]
struct Marks(usize);

impl Marks {
    /// More than any script piles up: they would be drawn over the lines above and below.
    const MOST: usize = 8;

    fn are_too_many_with(&mut self, c: char) -> bool {
        self.0 = if c.width() == Some(0) { self.0 + 1 } else { 0 };
        self.0 > Self::MOST
    }
}

/// Characters that show nothing and change how their neighbours read: directional marks, overrides and
/// isolates (Unicode Bidirectional Algorithm § 2), separators of lines, joiners and fillers, tags.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Characters that do not show what they are: spaces that are none of the keyboard, formats that belong to what
/// follows, variations, and those for private use. In a stored name they do no harm.
const fn is_unclear(c: char) -> bool {
    matches!(c,
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}'
        | '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}' | '\u{8e2}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{34f}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180d}'
        | '\u{180f}' | '\u{e0100}'..='\u{e01ef}'
        | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}')
}

/// `text` in at most `max_len` bytes, its middle replaced by `…`, so that the beginning and the ending
/// stay readable; never cut inside a character.
fn shorten_bytes(text: &str, max_len: usize) -> String {
    const GAP: char = '…';
    if text.len() <= max_len {
        return text.to_owned();
    }
    let tail_len = max_len / 3;
    let head = text.floor_char_boundary(max_len - tail_len - GAP.len_utf8());
    let tail = text.ceil_char_boundary(text.len() - tail_len);
    format!("{}{GAP}{}", &text[..head], &text[tail..])
}

/// Full case folding, then NFC: what search and comparison of names work on.
#[must_use]
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    nfc(&icu_casemap::CaseMapper::new().fold_string(text))
}

/// A folded text without its accents: `ete` for `été`. What makes another letter of it in its script, such
/// as the voicing marks of kana, stays.
#[must_use]
pub fn without_accents(folded: &str) -> String {
    if folded.is_ascii() {
        return folded.to_owned();
    }
    let classes = CanonicalCombiningClassMapBorrowed::new();
    let apart = DecomposingNormalizerBorrowed::new_nfd().normalize(folded);
    let bare: String = apart
        .chars()
        // Overlays; points of Hebrew, Arabic and Syriac; marks above, below and attached (UAX #44).
        .filter(|c| !matches!(classes.get_u8(*c), 1 | 10..=36 | 200..=240))
        .collect();
    nfc(&bare)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn user_names_that_could_mislead_are_refused() {
        for (text, error) in [
            ("", NameError::Empty),
            (" ", NameError::Character(' ')),
            ("ana ", NameError::Character(' ')),
            ("a b", NameError::Character(' ')),
            ("-x", NameError::Character('-')),
            (".x", NameError::Character('.')),
            ("a\u{1b}[31m", NameError::Character('\u{1b}')),
            ("a\u{202e}b", NameError::Character('\u{202e}')),
            ("a/b", NameError::Character('/')),
            ("a#b", NameError::Character('#')),
        ] {
            assert_eq!(text.parse::<UserName>(), Err(error), "{text:?}");
        }
        assert_eq!(
            "x".repeat(65).parse::<UserName>(),
            Err(NameError::TooLong(64))
        );
        for text in ["hans", "Żółw", "李", "ana.b-c_d+e", "4x4", &"x".repeat(64)] {
            assert!(text.parse::<UserName>().is_ok(), "{text:?}");
        }
    }

    #[test]
    fn names_that_look_equal_are_equal() {
        let composed: UserName = "Jos\u{e9}".parse().unwrap();
        let decomposed: UserName = "Jose\u{301}".parse().unwrap();
        assert_eq!(composed, decomposed);
        assert_eq!("HANS".parse::<UserName>().unwrap().folded(), "hans");
    }

    #[test]
    fn a_file_name_is_never_a_path() {
        for text in [
            "", ".", "..", "/", "/etc/x", "../x", "a/b", "a\0b", "a\nb", "a\u{7f}", "a\u{9b}",
        ] {
            assert!(text.parse::<FileName>().is_err(), "{text:?}");
        }
        assert!("x".repeat(256).parse::<FileName>().is_err());
        for text in [
            "a",
            "...",
            "~",
            "-x",
            "$(x)",
            "a b",
            "report (2).pdf",
            "Ωμέγα.txt",
            &"x".repeat(255),
        ] {
            assert!(text.parse::<FileName>().is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_local_name_is_made_fit() {
        assert_eq!(FileName::from_local("a\nb").unwrap().as_str(), "a_b");
        assert_eq!(FileName::from_local(""), None);
        assert_eq!(FileName::from_local(".."), None);
        let long = format!("{}.tar.gz", "ä".repeat(200));
        let cut = FileName::from_local(&long).unwrap();
        assert!(cut.as_str().len() <= 255 && cut.as_str().ends_with(".tar.gz"));
    }

    #[test]
    fn a_reversing_name_cannot_forge_a_line() {
        let name: FileName = "gpj\u{202e}exe".parse().unwrap();
        assert_eq!(name.to_string(), "gpj\\u{202e}exe");
        assert_eq!(
            safe("a\x1b[2Jb\r\nc\u{2028}d"),
            "a\\u{1b}[2Jb\\r\\nc\\u{2028}d"
        );
        for hidden in [
            '\u{a0}',
            '\u{202f}',
            '\u{600}',
            '\u{34f}',
            '\u{e000}',
            '\u{10fffd}',
        ] {
            let wanted = format!("a{}b", hidden.escape_default());
            assert_eq!(safe(&format!("a{hidden}b")), wanted);
        }
        let piled = format!("a{}b", "\u{301}".repeat(60));
        let shown = safe(&piled);
        let kept = format!("a{}\\u{{301}}", "\u{301}".repeat(8));
        assert!(
            shown.starts_with(&kept) && shown.ends_with("\\u{301}b"),
            "{shown}"
        );
        assert_eq!(shown.matches('\u{301}').count(), 8);
        assert_eq!(safe(&shown), shown);
        for shown in [
            "བསྒྲུབས",
            "กู้ยืม",
            "שָׁלוֹם",
            "각",
            "Zażółć gęślą.txt",
            "名前　一.txt",
            "❤\u{fe0f}.png",
            "١٢٣",
            "हिन्दी",
        ] {
            assert_eq!(safe(shown), shown);
        }
    }

    #[test]
    fn a_chat_message_is_bounded_always_one_line_and_in_no_log() {
        assert_eq!("".parse::<ChatText>(), Err(ChatError::Empty));
        assert!("x".repeat(MAX_CHAT_LEN).parse::<ChatText>().is_ok());
        let long = "x".repeat(MAX_CHAT_LEN + 1);
        assert_eq!(long.parse::<ChatText>(), Err(ChatError::TooLong));
        let text: ChatText = "hi\r\nP2P> rm\x07\x1b[2J".parse().unwrap();
        assert_eq!(text.as_str(), "hi\r\nP2P> rm\x07\x1b[2J");
        assert_eq!(text.to_string(), "hi\\r\\nP2P> rm\\u{7}\\u{1b}[2J");
        assert_eq!(format!("{text:?}"), "ChatText(16 bytes)");
    }

    #[test]
    fn folding_finds_what_people_mean() {
        assert_eq!(fold("STRASSE"), fold("straße"));
        assert_eq!(fold("E\u{301}TE\u{301}"), fold("été"));
        assert_eq!(fold("Report.PDF"), "report.pdf");
    }

    #[test]
    fn accents_go_and_letters_stay() {
        for (text, bare) in [
            ("été", "ete"),
            ("e\u{301}", "e"),
            ("ångström", "angstrom"),
            ("ợ", "o"),
            ("ёлка й", "елка и"),
            ("ωμέγα", "ωμεγα"),
            ("が", "が"),
            ("한글", "한글"),
            ("हिन्दी", "हिन्दी"),
            ("ŧøß", "ŧøß"),
            ("\u{301}", ""),
        ] {
            assert_eq!(without_accents(&nfc(text)), bare, "{text}");
        }
    }

    proptest! {
        #[test]
        fn without_accents_there_are_none_to_take(text in ".*") {
            let bare = without_accents(&fold(&text));
            prop_assert_eq!(without_accents(&bare), bare);
        }

        #[test]
        fn shown_text_holds_nothing_that_acts(text in ".*") {
            let shown = safe(&text);
            prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)));
        }

        #[test]
        fn a_local_name_is_a_name(text in ".*") {
            if let Some(name) = FileName::from_local(&text) {
                prop_assert_eq!(name.as_str().parse::<FileName>(), Ok(name.clone()));
            }
        }

        #[test]
        fn folding_twice_changes_nothing(text in ".*") {
            prop_assert_eq!(fold(&fold(&text)), fold(&text));
        }
    }
}
