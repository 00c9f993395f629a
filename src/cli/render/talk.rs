//! What people say to each other, as lines that nothing in them can leave.
//!
//! Each row that is shown begins with its sender, also where a long message is broken: no text of others stands
//! at the beginning of a row, where the program's own questions and its prompt stand.

use std::net::SocketAddr;
use std::time::Duration;

use unicode_width::UnicodeWidthStr as _;

use crate::cli::table::cut;
use crate::peer::End;
use crate::wire::id::PeerId;
use crate::wire::text::{UserName, safe};

/// Columns of a name in front of what was said.
const MAX_NAME: usize = 20;
/// Fewest columns that are left for a message; in a narrower terminal the name goes into them.
const MIN_ROOM: usize = 8;

/// A name in little room. A longer one loses its middle and gets the first group of the key print: `#` is in no
/// name, so that nobody can be called as somebody else looks here.
#[must_use]
pub fn short_name(user: &UserName, key: PeerId) -> String {
    let name = user.to_string();
    if name.width() <= MAX_NAME {
        return name;
    }
    let print = key.fingerprint().to_string();
    let mark = format!("#{}", &print[..4]);
    format!("{}{mark}", cut(&name, MAX_NAME - mark.len()))
}

/// `<vader> text`, in rows that fit `width` columns.
#[must_use]
pub fn said(
    user: &UserName,
    key: PeerId,
    to_all: bool,
    text: &str,
    width: Option<usize>,
) -> String {
    let name = short_name(user, key);
    let prefix = match to_all {
        true => format!("<{name} to all> "),
        false => format!("<{name}> "),
    };
    rows(&prefix, &safe(text), width).join("\n")
}

/// `text` in rows that each begin with `prefix`. In the last column a terminal may be on the next line already.
#[must_use]
pub fn rows(prefix: &str, text: &str, width: Option<usize>) -> Vec<String> {
    let room = match width {
        Some(width) => width.saturating_sub(prefix.width() + 1).max(MIN_ROOM),
        None => usize::MAX,
    };
    let mut rows = Vec::new();
    let (mut row, mut used) = (String::new(), 0);
    for word in text.split_inclusive(' ') {
        let need: usize = word.chars().map(columns).sum();
        if used + need > room && used > 0 && need <= room {
            rows.push(std::mem::take(&mut row));
            used = 0;
        }
        for c in word.chars() {
            if used + columns(c) > room {
                rows.push(std::mem::take(&mut row));
                used = 0;
            }
            row.push(c);
            used += columns(c);
        }
    }
    if !row.is_empty() || rows.is_empty() {
        rows.push(row);
    }
    rows.iter()
        .map(|row| format!("{prefix}{}", row.trim_end()))
        .collect()
}

/// Columns that a character takes at most, whatever a terminal takes it for: a row that became longer than it
/// should would go on at the beginning of the next one.
const fn columns(c: char) -> usize {
    if c < '\u{1100}' { 1 } else { 2 }
}

/// A talk began.
#[must_use]
pub fn talk_began(user: &UserName) -> String {
    format!("You talk with {user}: msg {user} TEXT")
}

/// A talk ended.
#[must_use]
pub fn talk_ended(user: &UserName, end: &End) -> String {
    match end {
        End::Here => format!("You talk with {user} no longer"),
        End::There => format!("{user} has ended the talk"),
        End::Broken(reason) => format!("! the talk with {user} broke off: {}", safe(reason)),
    }
}

/// Where somebody is reached: on the local network, or by which kind of address.
#[must_use]
pub fn ways(addresses: &[SocketAddr]) -> &'static str {
    let mut ways = (false, false, false);
    for address in addresses {
        match address.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => {
                let is_near = ip.is_private() || ip.is_link_local() || ip.is_loopback();
                ways = (ways.0 | is_near, ways.1 | !is_near, ways.2);
            }
            std::net::IpAddr::V6(ip) => {
                let is_near =
                    ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback();
                ways = (ways.0 | is_near, ways.1, ways.2 | !is_near);
            }
        }
    }
    match ways {
        (true, _, _) => "LAN",
        (false, true, true) => "IPv4, IPv6",
        (false, true, false) => "IPv4",
        (false, false, true) => "IPv6",
        (false, false, false) => "",
    }
}

/// A span of time in one word: `12 s`, `3 min`, `2 h`, `4 d`.
#[must_use]
pub fn ago(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..86_400 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: PeerId = PeerId([7; 32]);

    fn vader() -> UserName {
        "vader".parse().unwrap()
    }

    #[test]
    fn every_row_says_who_speaks() {
        let text = format!("{}P2P> yes", "x".repeat(31));
        let shown = said(&vader(), KEY, false, &text, Some(40));
        assert_eq!(
            shown,
            format!("<vader> {}\n<vader> P2P> yes", "x".repeat(31))
        );
        let shown = said(
            &vader(),
            KEY,
            true,
            "a\n? eva wants to talk\r\x1b[2J\u{202e}",
            Some(80),
        );
        let wanted = "<vader to all> a\\n? eva wants to talk\\r\\u{1b}[2J\\u{202e}";
        assert_eq!(shown, wanted);
        let words = said(&vader(), KEY, false, "one two three four", Some(20));
        assert_eq!(words, "<vader> one two\n<vader> three four");
        assert_eq!(
            said(&vader(), KEY, false, &text, None),
            format!("<vader> {text}")
        );
    }

    #[test]
    fn a_name_that_is_cut_cannot_be_anothers() {
        let long: UserName = "abcdefghijklmnopqrstuvwxyz".parse().unwrap();
        let shown = short_name(&long, KEY);
        assert!(shown.width() <= MAX_NAME && shown.contains('#'), "{shown}");
        assert_ne!(shown, short_name(&long, PeerId([8; 32])));
        assert!(!short_name(&vader(), KEY).contains('#'));
    }

    #[test]
    fn ways_are_told_by_the_nearest_address() {
        let ways_of = |texts: &[&str]| {
            let addresses: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
            ways(&addresses)
        };
        assert_eq!(ways_of(&["192.168.1.5:1", "8.8.8.8:1"]), "LAN");
        assert_eq!(ways_of(&["[fe80::1]:1"]), "LAN");
        assert_eq!(ways_of(&["[::ffff:8.8.8.8]:1"]), "IPv4");
        assert_eq!(ways_of(&["[2001:db8::1]:1", "8.8.8.8:1"]), "IPv4, IPv6");
        assert_eq!(ways_of(&[]), "");
    }

    proptest! {
        #[test]
        fn no_message_leaves_its_rows(text in ".{0,300}", width in 1_usize..120) {
            let shown = said(&vader(), KEY, false, &text, Some(width));
            for row in shown.lines() {
                prop_assert!(row.starts_with("<vader>"), "{row:?}");
                prop_assert!(row.width() <= width.max(8 + MIN_ROOM), "{row:?}");
                prop_assert_eq!(safe(row), row);
            }
            let all: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
            let kept: String = shown.replace("<vader>", "").chars().filter(|c| c.is_alphanumeric()).collect();
            prop_assert!(kept.len() >= all.len());
        }
    }
}
