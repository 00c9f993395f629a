//! The dialogs: role, passphrase, and what either needs.
//!
//! The questions look as dialoguer's do, its theme writes them; the answers are read here, as whole lines.
//! dialoguer's editor swallows Ctrl-D, so that nobody could get out of a question; its reader of passwords
//! shows what is typed before it is ready, and throws it away. A wrong answer is told and asked again; an
//! answer costs a line of input, so no question asks for ever.

use std::io::{self, BufRead as _, Write as _};

use dialoguer::theme::{SimpleTheme, Theme as _};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

use super::exit::{Class, Failure};
use super::passphrase::{Slip, WORDS, find_slip, generate, rate};
use crate::crypto::secret::Passphrase;
use crate::wire::password::Password;
use crate::wire::text::safe;

/// Answers that will not do, after which nobody is taken to be there.
pub(super) const MAX_ANSWERS: usize = 10;

/// Longest hidden answer that is read, in bytes: more than any passphrase has.
const MAX_HIDDEN_LEN: usize = 4096;

/// Asks a person.
pub trait Asker: Send {
    /// One line, without its end; `None` when there are no more.
    ///
    /// # Errors
    /// What the system says.
    fn line(&mut self, prompt: &str, default: Option<&str>) -> io::Result<Option<String>>;
    /// One line that is not shown while it is typed; `None` when there are no more.
    ///
    /// # Errors
    /// What the system says.
    fn hidden(&mut self, prompt: &str) -> io::Result<Option<Zeroizing<String>>>;
    /// Shows a line.
    fn tell(&mut self, line: &str);
}

/// The person at this terminal.
#[derive(Debug)]
pub struct Person;

impl Asker for Person {
    fn line(&mut self, prompt: &str, default: Option<&str>) -> io::Result<Option<String>> {
        let mut question = String::new();
        SimpleTheme
            .format_input_prompt(&mut question, prompt, default)
            .map_err(io::Error::other)?;
        // One mark is enough.
        let question = question.replace("?: ", "? ");
        let mut stderr = io::stderr();
        stderr.write_all(question.as_bytes())?;
        stderr.flush()?;
        let mut bytes = Vec::new();
        if io::stdin().lock().read_until(b'\n', &mut bytes)? == 0 {
            self.tell("");
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    fn hidden(&mut self, prompt: &str) -> io::Result<Option<Zeroizing<String>>> {
        ask_hidden(prompt, Interrupt::Ends)
    }

    fn tell(&mut self, line: &str) {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// What Ctrl-C does while an answer is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// It ends the program.
    Ends,
    /// It takes the question back, as Ctrl-D does.
    Cancels,
}

/// Asks the person at this terminal for one line that is not shown; `None` when there is none.
///
/// # Errors
/// What the system says.
pub fn ask_hidden(prompt: &str, interrupt: Interrupt) -> io::Result<Option<Zeroizing<String>>> {
    let mut question = String::new();
    SimpleTheme
        .format_password_prompt(&mut question, prompt)
        .map_err(io::Error::other)?;
    // Before the question: an answer may come at once.
    let _silent = match interrupt {
        Interrupt::Ends => Silent::begin()?,
        Interrupt::Cancels => Silent::begin_cancellable()?,
    };
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let answer = read_secret_line(interrupt)?;
    let shown = if answer.is_some() { "[hidden]" } else { "" };
    let _ = writeln!(stderr, "{shown}");
    Ok(answer)
}

/// The key Ctrl-C.
const CTRL_C: u8 = 3;
/// A key that does nothing special.
const NO_KEY: u8 = if cfg!(target_os = "linux") { 0 } else { 0xff };

/// While this lives, the terminal does not show what is typed.
pub(super) struct Silent(Termios);

impl Silent {
    pub(super) fn begin() -> io::Result<Self> {
        Self::with(|_| {})
    }

    /// The same; Ctrl-C is no signal, but ends the line and is its last character.
    fn begin_cancellable() -> io::Result<Self> {
        Self::with(|modes| {
            modes.special_codes[SpecialCodeIndex::VINTR] = NO_KEY;
            modes.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        })
    }

    fn with(change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        change(&mut silent);
        tcsetattr(io::stdin(), OptionalActions::Now, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Reads a line from the terminal itself: the standard library's buffer would keep a copy.
fn read_secret_line(interrupt: Interrupt) -> io::Result<Option<Zeroizing<String>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_HIDDEN_LEN));
    let mut part = Zeroizing::new([0; MAX_HIDDEN_LEN]);
    loop {
        let len = match rustix::io::read(io::stdin(), &mut part[..]) {
            Ok(len) => len,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if len == 0 && line.is_empty() {
            return Ok(None);
        }
        if interrupt == Interrupt::Cancels && part[..len].ends_with(&[CTRL_C]) {
            return Ok(None);
        }
        // What is too long is refused as a passphrase; here it only must not grow.
        let room = MAX_HIDDEN_LEN - line.len();
        line.extend_from_slice(&part[..len.min(room)]);
        if len == 0 || part[len - 1] == b'\n' {
            break;
        }
    }
    let text = std::str::from_utf8(&line)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the answer is not UTF-8"))?;
    Ok(Some(Zeroizing::new(
        text.trim_end_matches(['\r', '\n']).to_owned(),
    )))
}

/// Nobody answered.
fn ended() -> Failure {
    Failure::new(Class::Usage, "no answer: nothing was done")
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(Class::Usage, format!("cannot ask: {error}"))
}

/// Asks until the answer is one; Enter alone takes `default`.
///
/// # Errors
/// When there are no more answers.
pub fn question<T>(
    asker: &mut dyn Asker,
    prompt: &str,
    default: Option<&str>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Failure> {
    loop {
        let answer = asker
            .line(prompt, default)
            .map_err(|error| broken(&error))?;
        let answer = answer.ok_or_else(ended)?;
        let answer = match default {
            Some(default) if answer.is_empty() => default,
            _ => &answer,
        };
        match parse(answer) {
            Ok(value) => return Ok(value),
            Err(reason) => asker.tell(&format!("  {reason}")),
        }
    }
}

/// What this program can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The tracker of a group.
    Tracker,
    /// A peer.
    Peer,
}

/// Asks for the role.
///
/// # Errors
/// When there are no more answers.
pub fn role(asker: &mut dyn Asker) -> Result<Role, Failure> {
    question(
        asker,
        "Run as (t)racker or (p)eer?",
        None,
        |answer| match answer.to_lowercase().as_str() {
            "t" | "tracker" => Ok(Role::Tracker),
            "p" | "peer" => Ok(Role::Peer),
            _ => Err("type t or p".to_owned()),
        },
    )
}

/// Asks for a passphrase that somebody else made. A mistyped word is named and asked again; whoever types
/// the same once more means it. `first` is an answer that is there already.
///
/// # Errors
/// When there are no more answers.
pub fn known_passphrase(
    asker: &mut dyn Asker,
    mut first: Option<Zeroizing<String>>,
) -> Result<Passphrase, Failure> {
    let mut meant: Option<Zeroizing<String>> = None;
    for _ in 0..MAX_ANSWERS {
        let typed = match first.take() {
            Some(typed) => typed,
            None => hidden(asker, "Passphrase")?,
        };
        let passphrase = match Passphrase::parse(&typed) {
            Ok(passphrase) => passphrase,
            Err(error) => {
                asker.tell(&format!("  the passphrase {error}"));
                continue;
            }
        };
        match find_slip(&passphrase) {
            Some(slip) if meant.as_deref() != Some(&*typed) => {
                asker.tell(&format!("  {}", describe(&slip)));
                asker.tell("  (to use it as it is, type it again)");
                meant = Some(typed);
            }
            _ => return Ok(passphrase),
        }
    }
    Err(ended())
}

/// Asks for the passphrase of a new group: twice, strong enough unless `is_weak_allowed`, or made here when
/// the answer is empty. `first` is an answer that is there already.
///
/// # Errors
/// When there are no more answers.
pub fn new_passphrase(
    asker: &mut dyn Asker,
    is_weak_allowed: bool,
    mut first: Option<Zeroizing<String>>,
) -> Result<Passphrase, Failure> {
    for _ in 0..MAX_ANSWERS {
        let typed = match first.take() {
            Some(typed) => typed,
            None => hidden(asker, "New passphrase (Enter alone makes one)")?,
        };
        if typed.is_empty() {
            if let Some(made) = offered_passphrase(asker)? {
                return Ok(made);
            }
            continue;
        }
        let passphrase = match Passphrase::parse(&typed) {
            Ok(passphrase) => passphrase,
            Err(error) => {
                asker.tell(&format!("  the passphrase {error}"));
                continue;
            }
        };
        if let Some(refusal) = weakness(&passphrase).filter(|_| !is_weak_allowed) {
            asker.tell(&format!("  {refusal}; Enter alone makes a strong one"));
            continue;
        }
        asker.tell(&format!("  {}", rate(&passphrase)));
        if *hidden(asker, "The same again")? == *typed {
            return Ok(passphrase);
        }
        asker.tell("  these two differ");
    }
    Err(ended())
}

fn offered_passphrase(asker: &mut dyn Asker) -> Result<Option<Passphrase>, Failure> {
    let made = generate(WORDS);
    asker.tell(&Zeroizing::new(format!("  {}", *made)));
    let prompt = "Use this one, and tell it to the members of your group? (y/n)";
    let is_taken = question(asker, prompt, Some("y"), |answer| match answer {
        "y" | "Y" | "yes" => Ok(true),
        "n" | "N" | "no" => Ok(false),
        _ => Err("type y or n".to_owned()),
    })?;
    Ok(is_taken.then(|| Passphrase::parse(&made).expect("words with blanks are a passphrase")))
}

/// Why a tracker does not start with this passphrase, if it does not.
#[must_use]
pub fn weakness(passphrase: &Passphrase) -> Option<String> {
    let rating = rate(passphrase);
    (!rating.is_enough()).then(|| {
        format!(
            "this passphrase can be guessed (about 10^{} guesses)",
            rating.guesses_log10
        )
    })
}

/// A slip, as it is told.
#[must_use]
pub fn describe(slip: &Slip) -> String {
    let typed = safe(&slip.typed);
    match &slip.meant {
        Some(meant) => format!("\"{typed}\" is not in the word list; did you mean \"{meant}\"?"),
        None => format!("\"{typed}\" is not in the word list"),
    }
}

/// Asks one hidden question.
///
/// # Errors
/// When nobody can answer.
pub fn hidden(asker: &mut dyn Asker, prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let answer = asker.hidden(prompt).map_err(|error| broken(&error))?;
    answer.ok_or_else(ended)
}

/// Asks for a password until the answer can be one.
///
/// # Errors
/// When there are no more answers.
pub fn password(asker: &mut dyn Asker, prompt: &str) -> Result<Password, Failure> {
    for _ in 0..MAX_ANSWERS {
        match Password::parse(&hidden(asker, prompt)?) {
            Ok(password) => return Ok(password),
            Err(error) => asker.tell(&format!("  the password {error}")),
        }
    }
    Err(ended())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Answers from a list, and remembers what it was told.
    #[derive(Default)]
    struct Script {
        answers: VecDeque<&'static str>,
        told: Vec<String>,
        asked: usize,
    }

    fn script(answers: &[&'static str]) -> Script {
        Script {
            answers: answers.iter().copied().collect(),
            ..Script::default()
        }
    }

    impl Asker for Script {
        fn line(&mut self, _: &str, _: Option<&str>) -> io::Result<Option<String>> {
            self.asked += 1;
            Ok(self.answers.pop_front().map(str::to_owned))
        }
        fn hidden(&mut self, _: &str) -> io::Result<Option<Zeroizing<String>>> {
            self.asked += 1;
            let answer = self.answers.pop_front();
            Ok(answer.map(|answer| Zeroizing::new(answer.to_owned())))
        }
        fn tell(&mut self, line: &str) {
            self.told.push(line.to_owned());
        }
    }

    #[test]
    fn a_wrong_answer_is_asked_again_and_no_answer_ends() {
        assert_eq!(role(&mut script(&["x", "", "T"])), Ok(Role::Tracker));
        assert_eq!(role(&mut script(&["peer"])), Ok(Role::Peer));
        let mut silent = script(&["x"]);
        assert_eq!(role(&mut silent).unwrap_err().class, Class::Usage);
        assert_eq!(
            (silent.asked, silent.told.as_slice()),
            (2, &["  type t or p".to_owned()][..])
        );
    }

    #[test]
    fn enter_alone_takes_the_default() {
        let port = |answers: &[&'static str]| {
            question(&mut script(answers), "Port", Some("9000"), |answer| {
                answer.parse::<u16>().map_err(|error| error.to_string())
            })
        };
        assert_eq!(port(&[""]), Ok(9000));
        assert_eq!(port(&["99999", "7"]), Ok(7));
    }

    #[test]
    fn a_mistyped_word_is_asked_again_and_accepted_when_meant() {
        let (wrong, right) = (
            "hourse castle window river planet sugar",
            "horse castle window river planet sugar",
        );
        let mut asker = script(&[wrong, right]);
        assert_eq!(known_passphrase(&mut asker, None).unwrap().expose(), right);
        assert!(asker.told[0].contains("did you mean \"horse\"?"));
        let mut asker = script(&[wrong, wrong]);
        assert_eq!(known_passphrase(&mut asker, None).unwrap().expose(), wrong);
    }

    #[test]
    fn a_passphrase_that_never_comes_ends_the_questions() {
        for (answers, asked) in [(&[][..], 1), (&[""; 20], MAX_ANSWERS)] {
            let mut asker = script(answers);
            assert!(known_passphrase(&mut asker, None).is_err());
            assert_eq!(asker.asked, asked);
        }
    }

    #[test]
    fn a_new_passphrase_is_strong_and_typed_twice() {
        let strong = "we met in Paris, 1998, near the canal";
        let mut asker = script(&["hunter2", strong, "other", strong, strong]);
        let made = new_passphrase(&mut asker, false, None).unwrap();
        assert_eq!(made.expose(), strong);
        assert!(asker.told[0].contains("can be guessed"));
        assert!(
            asker.told[1].starts_with("  good enough: score ") && asker.told[2].contains("differ")
        );
        let mut asker = script(&["hunter2"]);
        let typed = Some(Zeroizing::new("hunter2".to_owned()));
        let made = new_passphrase(&mut asker, true, typed).unwrap();
        assert_eq!(made.expose(), "hunter2");
    }

    #[test]
    fn an_empty_answer_makes_a_passphrase() {
        let mut asker = script(&["", "n", "", "y"]);
        let made = new_passphrase(&mut asker, false, None).unwrap();
        assert_ne!(asker.told[0], asker.told[1]);
        assert_eq!(asker.told[1].trim(), made.expose());
    }
}
