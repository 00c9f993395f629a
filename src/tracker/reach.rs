//! Under which address a peer is handed out: one that the tracker saw, made good for whoever asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address of this machine and how many of its leading bits name the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The address.
    pub ip: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
}

impl Interface {
    fn holds(&self, other: IpAddr) -> bool {
        match (self.ip, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                shares_prefix(a.to_bits().into(), b.to_bits().into(), 32, self.prefix)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                shares_prefix(a.to_bits(), b.to_bits(), 128, self.prefix)
            }
            _ => false,
        }
    }
}

fn shares_prefix(a: u128, b: u128, bits: u32, prefix: u8) -> bool {
    let rest = bits.saturating_sub(u32::from(prefix));
    a.checked_shr(rest) == b.checked_shr(rest)
}

/// Where `asker` can reach a peer that was seen at `seen` and listens on `port`. A peer on this very
/// machine was seen at its loopback address: others get one of the machine's own, in their network if
/// there is one.
#[must_use]
pub fn reach(seen: IpAddr, port: u16, asker: IpAddr, ours: &[Interface]) -> SocketAddr {
    let (seen, asker) = (seen.to_canonical(), asker.to_canonical());
    if !seen.is_loopback() || asker.is_loopback() {
        return SocketAddr::new(seen, port);
    }
    let near = ours.iter().find(|interface| interface.holds(asker));
    let same_family = ours
        .iter()
        .find(|interface| interface.ip.is_ipv4() == asker.is_ipv4());
    SocketAddr::new(
        near.or(same_family).map_or(seen, |interface| interface.ip),
        port,
    )
}

/// The addresses of this machine under which others may reach it: private ones first, then public ones.
#[must_use]
pub fn interfaces() -> Vec<Interface> {
    found(|interface| !interface.is_loopback() && !interface.is_link_local())
}

/// The same, and behind them those that are good on one link only, for whoever asks from such a one.
#[must_use]
pub fn interfaces_and_links() -> Vec<Interface> {
    let mut interfaces = interfaces();
    interfaces.extend(found(if_addrs::Interface::is_link_local));
    interfaces
}

fn found(is_meant: impl Fn(&if_addrs::Interface) -> bool) -> Vec<Interface> {
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    let mut interfaces: Vec<_> = found
        .into_iter()
        .filter(|interface| is_meant(interface))
        .map(|interface| match interface.addr {
            if_addrs::IfAddr::V4(v4) => Interface {
                ip: v4.ip.into(),
                prefix: v4.prefixlen,
            },
            if_addrs::IfAddr::V6(v6) => Interface {
                ip: v6.ip.into(),
                prefix: v6.prefixlen,
            },
        })
        .collect();
    interfaces.sort_by_key(|interface| (interface.ip.is_ipv6(), !is_private(interface.ip)));
    interfaces
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// Loopback, of the family that `ip` has.
#[must_use]
pub const fn loopback_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_get_an_address_that_they_can_reach() {
        let ours = [
            Interface {
                ip: "10.1.0.9".parse().unwrap(),
                prefix: 16,
            },
            Interface {
                ip: "192.168.1.9".parse().unwrap(),
                prefix: 24,
            },
            Interface {
                ip: "fd00::9".parse().unwrap(),
                prefix: 64,
            },
            Interface {
                ip: "fe80::9".parse().unwrap(),
                prefix: 64,
            },
        ];
        // seen at, asker, handed out
        for (seen, asker, given) in [
            ("192.168.1.5", "10.1.0.1", "192.168.1.5"),
            ("::ffff:192.168.1.5", "10.1.0.1", "192.168.1.5"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "192.168.1.7", "192.168.1.9"),
            ("127.0.0.1", "::ffff:10.1.200.7", "10.1.0.9"),
            ("::1", "fd00::7", "fd00::9"),
            ("127.0.0.1", "fe80::7", "fe80::9"),
            ("127.0.0.1", "8.8.8.8", "10.1.0.9"),
        ] {
            let given: IpAddr = given.parse().unwrap();
            let reached = reach(seen.parse().unwrap(), 8001, asker.parse().unwrap(), &ours);
            assert_eq!(reached, SocketAddr::new(given, 8001), "{seen} for {asker}");
        }
    }
}
