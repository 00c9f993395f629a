//! Sends and hears beacons on every network that this machine is on.
//!
//! IPv4 by directed broadcast, IPv6 by a link-local multicast group. Several programs of one machine hear the
//! same port; each has its own idea of who is there.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use if_addrs::IfAddr;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::crypto::beacon::BeaconKey;
use crate::crypto::kdf::NetworkName;
use crate::crypto::random::{OsRandom, random_bytes};
use crate::net::unix_ms;
use crate::proto::neighbours::{Neighbours, Own, Seeks};
use crate::wire::beacon::{BEACON_LEN, Instance};
use crate::wire::packet::Role;

/// Where beacons go over IPv6: the link and no farther, an address of nobody's.
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x7032, 0x7066);
/// Where they go on this very machine, over IPv4: it may be on no network.
const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
/// Most interfaces that are used.
const MAX_LINKS: usize = 64;
/// Pause after the system gave no datagram.
const PAUSE: Duration = Duration::from_millis(100);
/// After the first tracker is heard, others have this long to be heard as well.
const SETTLING: Duration = Duration::from_secs(1);

/// What a program does on the local network.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// UDP port of all beacons.
    pub port: u16,
    /// The one address that we use; all when absent.
    pub bind: Option<IpAddr>,
}

/// Ports on which beacons are sent and heard, and who was heard.
pub struct Beacons {
    sockets: Sockets,
    key: BeaconKey,
    machine: Neighbours,
    random: OsRandom,
    buffer: [u8; BEACON_LEN + 1],
}

impl Beacons {
    /// Nothing is sent or heard yet. `port` is where our tracker listens, 0 for nowhere.
    ///
    /// # Errors
    /// When the port of the beacons cannot be had.
    pub fn open(
        settings: Settings,
        network: &NetworkName,
        (role, port): (Role, u16),
        seeks: Seeks,
    ) -> io::Result<Self> {
        let mut random = OsRandom::new();
        let own = Own {
            role,
            port,
            instance: Instance(random_bytes(&mut random)),
        };
        let machine = Neighbours::new(Instant::now(), own, seeks, Box::new(OsRandom::new()));
        Ok(Self {
            sockets: Sockets::open(settings)?,
            key: BeaconKey::of(network),
            machine,
            random,
            buffer: [0; BEACON_LEN + 1],
        })
    }

    /// Who was heard.
    pub const fn machine(&mut self) -> &mut Neighbours {
        &mut self.machine
    }

    /// Until something was sent or heard. May be given up at any time.
    pub async fn step(&mut self) {
        let wake = self.machine.poll_timeout();
        let heard = tokio::select! {
            heard = self.sockets.next(&mut self.buffer) => Some(heard),
            () = sleep_until(wake.into()) => None,
        };
        let now = Instant::now();
        if let Some((len, from)) = heard
            && self.machine.may_open(now, from.ip())
            && let Some(beacon) = self.key.open(&self.buffer[..len])
        {
            let unix_s = unix_ms() / 1000;
            self.machine.handle_beacon(now, unix_s, from, beacon);
        }
        self.machine.handle_timeout(now);
        if self.machine.poll_beacon(now) {
            if self.sockets.look() {
                self.machine.handle_change(now);
            }
            let beacon = self.machine.beacon(unix_ms() / 1000);
            let datagram = self.key.seal(beacon, &mut self.random);
            self.sockets.send(&datagram);
        }
    }

    /// Shows that we are here, until `shutdown`.
    pub async fn announce(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.step() => {}
            }
            while self.machine.poll_event().is_some() {}
        }
    }

    /// The trackers that answer, each with its addresses; none when nobody does within `limit`.
    pub async fn trackers(mut self, limit: Duration) -> Vec<Vec<SocketAddr>> {
        let mut until = tokio::time::Instant::now() + limit;
        let mut is_settling = false;
        while tokio::time::timeout_at(until, self.step()).await.is_ok() {
            if !is_settling && !self.machine.trackers().is_empty() {
                is_settling = true;
                until = until.min(tokio::time::Instant::now() + SETTLING);
            }
        }
        self.machine.trackers()
    }
}

/// Can the port be had?
///
/// # Errors
/// What the system says when not.
pub fn try_port(settings: Settings) -> io::Result<()> {
    Sockets::open(settings).map(drop)
}

/// Where our beacons go.
#[derive(Debug, Default, PartialEq, Eq)]
struct Links {
    broadcasts: BTreeSet<Ipv4Addr>,
    /// Interfaces with IPv6, by number.
    indices: BTreeSet<u32>,
    /// Our own addresses: when they change, others hear of us at once.
    own: BTreeSet<IpAddr>,
}

impl Links {
    /// Those of this machine now.
    fn now(bind: Option<IpAddr>) -> Self {
        let bind = bind.filter(|bind| !bind.is_unspecified());
        let mut links = Self::default();
        if bind.is_none_or(|bind| bind == Ipv4Addr::LOCALHOST) {
            links.broadcasts.insert(LOOPBACK);
        }
        let found = if_addrs::get_if_addrs().unwrap_or_default();
        let ours = |it: &if_addrs::Interface| !it.is_loopback() && !it.is_p2p;
        let meant = |it: &if_addrs::Interface| bind.is_none_or(|bind| bind == it.ip());
        for interface in found.into_iter().filter(|it| ours(it) && meant(it)) {
            links.own.insert(interface.ip());
            match (&interface.addr, interface.index) {
                (IfAddr::V4(v4), _) if links.broadcasts.len() < MAX_LINKS => {
                    links.broadcasts.extend(v4.broadcast);
                }
                (IfAddr::V6(_), Some(index)) if links.indices.len() < MAX_LINKS => {
                    links.indices.insert(index);
                }
                _ => {}
            }
        }
        links
    }
}

struct Sockets {
    port: u16,
    bind: Option<IpAddr>,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    links: Links,
}

impl Sockets {
    fn open(Settings { port, bind }: Settings) -> io::Result<Self> {
        let v4 = shared_socket(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        let v6 = shared_socket(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let (v4, v6) = match (v4, v6) {
            (Err(error), Err(_)) => return Err(error),
            (v4, v6) => (v4.ok(), v6.ok()),
        };
        let links = Links::default();
        let mut sockets = Self {
            port,
            bind,
            v4,
            v6,
            links,
        };
        sockets.look();
        Ok(sockets)
    }

    /// Looks at the machine's networks; have they changed?
    fn look(&mut self) -> bool {
        let links = Links::now(self.bind);
        if links == self.links {
            return false;
        }
        if let Some(v6) = &self.v6 {
            // An interface that went took its membership along, and may have come back with its number.
            for index in &links.indices {
                if let Err(error) = v6.join_multicast_v6(&GROUP_V6, *index)
                    && error.kind() != ErrorKind::AddrInUse
                {
                    debug!(%error, index, "no beacons are heard over IPv6 there");
                }
            }
        }
        self.links = links;
        true
    }

    /// To everybody; what the system does not take is lost, and another one follows.
    fn send(&self, datagram: &[u8]) {
        let send = |socket: &Option<UdpSocket>, to: SocketAddr| {
            if let Some(Err(error)) = socket.as_ref().map(|it| it.try_send_to(datagram, to)) {
                debug!(%error, %to, "no beacon is sent there");
            }
        };
        for broadcast in &self.links.broadcasts {
            send(&self.v4, SocketAddr::from((*broadcast, self.port)));
        }
        for index in &self.links.indices {
            let to = SocketAddrV6::new(GROUP_V6, self.port, 0, *index);
            send(&self.v6, SocketAddr::V6(to));
        }
    }

    /// The next datagram, as far as it fits, and whence it came.
    async fn next(&self, buffer: &mut [u8]) -> (usize, SocketAddr) {
        loop {
            let ready = tokio::select! {
                ready = readable(self.v4.as_ref()) => ready,
                ready = readable(self.v6.as_ref()) => ready,
            };
            match ready.map(|socket| socket.try_recv_from(buffer)) {
                Ok(Ok(received)) => return received,
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(Err(_)) | Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

async fn readable(socket: Option<&UdpSocket>) -> io::Result<&UdpSocket> {
    match socket {
        Some(socket) => socket.readable().await.map(|()| socket),
        None => std::future::pending().await,
    }
}

/// A socket whose port others on this machine may have as well: all of them hear what is sent to all.
fn shared_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(not(target_os = "linux"))]
    socket.set_reuse_port(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_broadcast(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_multicast_loop_v6(true)?;
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
