//! The screen of somebody who asks a running peer through its socket: lines over there, shown here.
//!
//! The peer makes each line as it would for its own screen, with the width and the style of the one who asks;
//! here it is only written. So there is one way to say a thing. A line is cut for the socket and put together
//! again, as one object may be longer than a line of the socket. What acts on a terminal is escaped here once
//! more: whoever asks may be root, and the one who answers anybody.

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::exit::Failure;
use super::opener::LockedFile;
use super::screen::{Screen, Style};
use crate::ipc::Client;
use crate::wire::text::{safe, safe_json};

/// Longest part of a text in one line of the socket, in bytes before escaping.
const PART: usize = 32 << 10;

/// Which stream a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Results.
    Out,
    /// Everything else.
    Err,
    /// A line on stderr that the next one replaces.
    Live,
    /// A locked file that came, for whoever has its password.
    Locked,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
            Self::Live => "live",
            Self::Locked => "locked",
        }
    }
}

/// Where the screen of a client is written to.
#[derive(Clone, Debug)]
pub struct Outlet {
    lines: mpsc::UnboundedSender<Value>,
    /// Columns for a listing.
    pub width: Option<usize>,
    /// Columns of a line that is drawn again and again.
    pub live_width: Option<usize>,
}

impl Outlet {
    /// For `client`; what it is told comes out of the receiver.
    #[must_use]
    pub fn new(client: &Client) -> (Self, mpsc::UnboundedReceiver<Value>) {
        let (lines, receiver) = mpsc::unbounded_channel();
        let outlet = Self {
            lines,
            width: client.width,
            live_width: client.live_width,
        };
        (outlet, receiver)
    }

    /// Writes a text; lost when nobody reads.
    pub fn send(&self, kind: Kind, text: &str) {
        let mut rest = text;
        loop {
            let (part, after) = rest.split_at(rest.floor_char_boundary(PART));
            rest = after;
            let mut line = json!({"v": 1, "type": kind.name(), "text": part});
            if !rest.is_empty() {
                line["more"] = true.into();
            }
            if self.lines.send(line).is_err() || rest.is_empty() {
                return;
            }
        }
    }

    /// Does nobody read any more?
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.lines.is_closed()
    }
}

/// What a peer has to know of this screen.
#[must_use]
pub fn describe(screen: &Screen) -> Client {
    Client {
        json: screen.style() == Style::Json,
        quiet: screen.is_quiet(),
        width: screen.width(),
        live_width: screen.live_width().filter(|_| screen.is_live()),
        ..Client::default()
    }
}

/// A text from the socket as it may be shown: its lines are lines, and nothing in them acts on the terminal.
#[must_use]
pub fn harmless(style: Style, text: &str) -> String {
    let escape = match style {
        Style::Text => safe,
        Style::Json => safe_json,
    };
    text.split('\n').map(escape).collect::<Vec<_>>().join("\n")
}

/// Shows what comes through the socket.
#[derive(Debug)]
pub struct Showing<'a> {
    screen: &'a Screen,
    begun: String,
    failed: Option<Failure>,
    locked: Vec<LockedFile>,
}

impl<'a> Showing<'a> {
    /// On `screen`.
    #[must_use]
    pub fn new(screen: &'a Screen) -> Self {
        Self {
            screen,
            begun: String::new(),
            failed: None,
            locked: Vec::new(),
        }
    }

    /// The locked files that came.
    pub fn take_locked(&mut self) -> Vec<LockedFile> {
        std::mem::take(&mut self.locked)
    }

    /// What could not be shown.
    ///
    /// # Errors
    /// When stdout did not take a result.
    pub fn end(self) -> Result<(), Failure> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Takes one line.
    pub fn take(&mut self, line: &Value) {
        self.begun
            .push_str(line["text"].as_str().unwrap_or_default());
        if line["more"] == true {
            return;
        }
        let text = std::mem::take(&mut self.begun);
        match line["type"].as_str() {
            Some("out") if self.failed.is_none() => {
                let text = harmless(self.screen.style(), &text);
                self.failed = self.screen.print(&text).err();
            }
            Some("err") => self.screen.relay(&harmless(Style::Text, &text)),
            Some("live") => drop(self.screen.live(&safe(&text))),
            Some("locked") => self.locked.extend(handed(&text)),
            _ => {}
        }
    }
}

/// A locked file as it goes through the socket.
#[must_use]
pub fn hand(locked: &LockedFile) -> String {
    json!({"path": locked.path.to_string_lossy(), "stays": locked.stays}).to_string()
}

fn handed(text: &str) -> Option<LockedFile> {
    let object: Value = serde_json::from_str(text).ok()?;
    Some(LockedFile {
        path: object["path"].as_str()?.into(),
        stays: object["stays"].as_bool()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_goes_in_parts_and_nothing_of_it_is_lost() {
        let (outlet, mut lines) = Outlet::new(&Client::default());
        let long = "名".repeat(PART);
        for text in ["", "short", &long] {
            outlet.send(Kind::Out, text);
            let mut whole = String::new();
            loop {
                let line = lines.try_recv().unwrap();
                whole.push_str(line["text"].as_str().unwrap());
                assert!(line.to_string().len() < 2 * PART);
                if line["more"] != true {
                    break;
                }
            }
            assert_eq!(whole, text);
        }
        assert!(!outlet.is_gone());
        drop(lines);
        outlet.send(Kind::Out, &long);
        assert!(outlet.is_gone());
    }

    #[test]
    fn what_comes_through_the_socket_acts_on_no_terminal() {
        let text = "NAME\x1b]0;x\x07\r\nb\u{9b}2J\u{202e}";
        let shown = harmless(Style::Text, text);
        assert_eq!(shown, "NAME\\u{1b}]0;x\\u{7}\\r\nb\\u{9b}2J\\u{202e}");
        assert_eq!(harmless(Style::Text, &shown), shown, "once is enough");
        let object = "{\"name\":\"\u{202e}\u{9b}x\"}";
        let shown = harmless(Style::Json, object);
        assert_eq!(shown, r#"{"name":"\u202e\u009bx"}"#);
    }
}
