//! Where the tracker is, as people say it: at a host, somewhere on the local network, or nowhere.

use super::exit::Failure;
use super::setup::DEFAULT_PORT;

/// An answer to the question where the tracker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this host, on this port.
    Host(String, u16),
    /// Wherever one answers on the local network: `auto`.
    Auto,
    /// There is none, peers find each other: `none`.
    Nowhere,
}

impl Place {
    /// `auto`, `none`, `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`, or a bare IPv6 address. A host that is called
    /// `auto` is written with its port.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::Nowhere),
            host => parse_host(host).map(|(host, port)| Self::Host(host, port)),
        }
    }
}

fn parse_host(text: &str) -> Result<(String, u16), Failure> {
    let wrong = || {
        Failure::usage(format!(
            "\"{text}\" is not a tracker; write HOST or HOST:PORT, auto or none"
        ))
    };
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((text.to_owned(), DEFAULT_PORT));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest
            .split_once(']')
            .map(|(host, rest)| (host, rest.strip_prefix(':')))
            .ok_or_else(wrong)?,
        None => text
            .split_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(wrong)?,
        None => DEFAULT_PORT,
    };
    if host.is_empty()
        || host
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '/')
    {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_is_named_in_many_ways() {
        for (text, host, port) in [
            ("hub", "hub", 9000),
            ("hub:1", "hub", 1),
            ("192.168.1.100:65535", "192.168.1.100", 65535),
            ("::1", "::1", 9000),
            ("[::1]", "::1", 9000),
            ("[fd00::1]:9001", "fd00::1", 9001),
            ("auto:9000", "auto", 9000),
        ] {
            let place = Place::Host(host.to_owned(), port);
            assert_eq!(Place::parse(text).unwrap(), place, "{text}");
        }
        assert_eq!(Place::parse(" auto ").unwrap(), Place::Auto);
        assert_eq!(Place::parse("none").unwrap(), Place::Nowhere);
        for text in [
            "",
            ":9000",
            "hub:",
            "hub:0",
            "hub:65536",
            "hub:x",
            "[::1",
            "a b",
            "http://hub",
        ] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
