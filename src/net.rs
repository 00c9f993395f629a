//! Sockets as both tracker and peers want them: IPv6 and IPv4 on one, and the handshake's listening side.

mod few;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant as Deadline, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::few::serve_few;
use crate::crypto::handshake::{Accepted, Local, Responder, ResponderError};
use crate::crypto::kdf::EnvelopeKeys;
use crate::crypto::random::OsRandom;
use crate::proto::gate::{Entry, Gate, Outcome, PassId};
use crate::wire::packet::{CONFIRM_LEN, HELLO_LEN};

/// A stranger is heard for this long, whatever it says, and then the connection is closed.
const STRANGER_TIME: Duration = Duration::from_secs(5);
/// m3 comes within this time after m2.
const CONFIRM_TIME: Duration = Duration::from_secs(5);
/// Most bytes that are read of what does not open.
const MAX_DISCARDED: usize = 64 * 1024;
/// Handshakes that may wait for a processor; beyond it the answer is "busy".
const MAX_WAITING: usize = 256;
/// Strangers that are heard to the end of their time although nothing came of it.
const MAX_MUTE: usize = 128;
const BACKLOG: i32 = 1024;

/// Lets this process have as many descriptors as the system allows it: connections and files are many.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

/// How many descriptors this process may have; `None` for any number.
#[must_use]
pub fn descriptor_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Can `port` of `bind`, or of all addresses, be had for TCP and UDP?
///
/// # Errors
/// What the system says when not.
pub fn is_free(bind: Option<IpAddr>, port: u16) -> io::Result<()> {
    drop(bound(
        bind,
        port,
        Type::DGRAM,
        Protocol::UDP,
        Sharing::Alone,
    )?);
    let socket = bound(bind, port, Type::STREAM, Protocol::TCP, Sharing::Alone)?;
    socket.listen(BACKLOG)
}

/// This machine's clock: Unix time in ms.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A TCP listener on `port` of `bind`, or of all addresses, IPv6 and IPv4.
///
/// # Errors
/// When the port is taken or not allowed.
pub fn listen_tcp(bind: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    let socket = bound(bind, port, Type::STREAM, Protocol::TCP, Sharing::Alone)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether several sockets of this program share one port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// One socket has it.
    Alone,
    /// Several have it, and the system spreads what comes over them, each source to one of them.
    Spread,
}

/// Can a port be shared so that the system spreads what comes over its sockets? Elsewhere the last socket
/// would get all of it.
pub const CAN_SPREAD: bool = cfg!(target_os = "linux");

/// A UDP socket on `port` of `bind`, or of all addresses, IPv6 and IPv4, with `receive_buffer_bytes` if
/// the system grants them.
///
/// # Errors
/// When the port is taken or not allowed.
pub fn bind_udp(
    bind: Option<IpAddr>,
    port: u16,
    receive_buffer_bytes: usize,
    sharing: Sharing,
) -> io::Result<Socket> {
    let socket = bound(bind, port, Type::DGRAM, Protocol::UDP, sharing)?;
    socket.set_recv_buffer_size(receive_buffer_bytes)?;
    Ok(socket)
}

/// The receive buffer that the system granted, in the units in which it was asked for.
#[must_use]
pub fn granted_buffer_bytes(socket: &Socket) -> usize {
    let reported = socket.recv_buffer_size().unwrap_or(0);
    // Linux reports twice what it was asked for, as it counts its own books with it (socket(7)).
    if cfg!(target_os = "linux") {
        reported / 2
    } else {
        reported
    }
}

fn bound(
    bind: Option<IpAddr>,
    port: u16,
    kind: Type,
    protocol: Protocol,
    sharing: Sharing,
) -> io::Result<Socket> {
    match bind {
        Some(ip) => bound_to(ip, port, kind, protocol, sharing),
        // A machine without IPv6 has only the other one.
        None => {
            bound_to(Ipv6Addr::UNSPECIFIED.into(), port, kind, protocol, sharing).or_else(|error| {
                match error.kind() {
                    io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
                    _ => bound_to(Ipv4Addr::UNSPECIFIED.into(), port, kind, protocol, sharing),
                }
            })
        }
    }
}

fn bound_to(
    ip: IpAddr,
    port: u16,
    kind: Type,
    protocol: Protocol,
    sharing: Sharing,
) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(SocketAddr::new(ip, port)),
        kind,
        Some(protocol),
    )?;
    if ip.is_ipv6() {
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    if kind == Type::STREAM {
        // A port whose last connections are still winding down is free; one that is listened on is not.
        socket.set_reuse_address(true)?;
    }
    #[cfg(unix)]
    if sharing == Sharing::Spread {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(ip, port).into())?;
    Ok(socket)
}

/// The listening side of handshakes, within their limits.
#[derive(Clone)]
pub struct Doorkeeper {
    hall: Arc<Mutex<Hall>>,
    processors: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    mute: Arc<Semaphore>,
}

struct Hall {
    gate: Gate,
    /// Tells a visitor that it has to make room.
    evictions: HashMap<PassId, CancellationToken>,
}

impl Default for Doorkeeper {
    fn default() -> Self {
        Self::new()
    }
}

impl Doorkeeper {
    /// Nobody knocks.
    #[must_use]
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let hall = Hall {
            gate: Gate::new(Instant::now()),
            evictions: HashMap::new(),
        };
        Self {
            hall: Arc::new(Mutex::new(hall)),
            processors: Arc::new(Semaphore::new((cores / 2).max(1))),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            mute: Arc::new(Semaphore::new(MAX_MUTE)),
        }
    }

    /// May this connection begin? `None`: drop it.
    #[must_use]
    pub fn enter(&self, ip: IpAddr) -> Option<Visitor> {
        let mut hall = self.hall();
        let Entry { pass, evicted } = hall.gate.enter(Instant::now(), ip)?;
        if let Some(token) = evicted.and_then(|evicted| hall.evictions.remove(&evicted)) {
            token.cancel();
        }
        let evicted = CancellationToken::new();
        hall.evictions.insert(pass, evicted.clone());
        Some(Visitor {
            door: self.clone(),
            pass,
            ip,
            evicted,
            outcome: Outcome::Unanswered,
            why: Turned::Silent,
        })
    }

    fn hall(&self) -> MutexGuard<'_, Hall> {
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our side of the handshake, looked up when a visitor has spoken: keys may have changed meanwhile.
pub trait Host: Send + Sync + 'static {
    /// Group, identity and role.
    fn local(&self) -> Local<'_>;
    /// The envelopes that we open.
    fn envelopes(&self) -> Vec<EnvelopeKeys>;
    /// Somebody from `from` comes to nothing, for whoever counts; the other side is not told.
    fn turned_away(&self, _from: IpAddr, _why: Turned) {}
}

/// Why a handshake comes to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// One of the limits of the gate.
    Limited,
    /// Nothing that opens came in time.
    Silent,
    /// It opened, and was refused: another version, a clock that is wrong.
    Refused,
    /// Too many handshakes waited for a processor.
    Busy,
    /// The proof of the passphrase is wrong, or did not come.
    Unproved,
}

/// One connection that was let in, until its handshake is over.
pub struct Visitor {
    door: Doorkeeper,
    pass: PassId,
    ip: IpAddr,
    evicted: CancellationToken,
    outcome: Outcome,
    why: Turned,
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut hall = self.door.hall();
        hall.evictions.remove(&self.pass);
        hall.gate.leave(Instant::now(), self.pass, self.outcome);
    }
}

impl Visitor {
    /// Shakes hands; `None` when there is nobody to go on with, and then the connection has been treated
    /// as all others that do not open: mute until the deadline.
    pub async fn shake_hands(
        mut self,
        stream: &mut TcpStream,
        host: Arc<impl Host>,
    ) -> Option<Accepted> {
        let deadline = Deadline::now() + STRANGER_TIME;
        let evicted = self.evicted.clone();
        let accepted = tokio::select! {
            accepted = self.try_hands(stream, Arc::clone(&host), deadline) => accepted,
            () = evicted.cancelled() => {
                host.turned_away(self.ip, Turned::Limited);
                return None;
            }
        };
        if accepted.is_none() {
            host.turned_away(self.ip, self.why);
            // The place is given back first: whoever is mute shall not keep others out.
            let mute = Arc::clone(&self.door.mute);
            drop(self);
            // Each costs a descriptor; beyond the bound the connection just ends.
            if let Ok(_place) = mute.try_acquire() {
                discard_until(stream, deadline).await;
            }
        }
        accepted
    }

    /// Guesses of the passphrase are few a second in all; whoever comes when they are used up waits.
    async fn wait_for_guess(&self) {
        loop {
            let taken = self.door.hall().gate.take_guess(Instant::now());
            match taken {
                Ok(()) => return,
                Err(wait) => sleep(wait).await,
            }
        }
    }

    async fn try_hands(
        &mut self,
        stream: &mut TcpStream,
        host: Arc<impl Host>,
        deadline: Deadline,
    ) -> Option<Accepted> {
        let mut m1 = Box::new([0; HELLO_LEN]);
        timeout_at(deadline, stream.read_exact(&mut *m1))
            .await
            .ok()?
            .ok()?;
        self.door.hall().gate.note_m1(self.pass);
        let Ok(place) = Arc::clone(&self.door.waiting).try_acquire_owned() else {
            self.why = Turned::Busy;
            let m2 = Responder::busy(&host.envelopes(), &m1, &mut OsRandom::new())?;
            timeout_at(deadline, stream.write_all(&*m2))
                .await
                .ok()?
                .ok()?;
            return None;
        };
        let processor = Arc::clone(&self.door.processors)
            .acquire_owned()
            .await
            .ok()?;
        let answer = tokio::task::spawn_blocking(move || {
            let _processor = processor;
            Responder::answer(
                host.local(),
                &host.envelopes(),
                &m1,
                unix_ms(),
                &mut OsRandom::new(),
            )
        });
        let answer = answer.await.ok()?;
        // Whoever is silent from now on has a place of the gate's, and none among those who wait.
        drop(place);
        let (responder, m2) = match answer {
            Ok(answered) => answered,
            Err(ResponderError::Silence) => return None,
            Err(ResponderError::Refuse(m2)) => {
                self.why = Turned::Refused;
                timeout_at(deadline, stream.write_all(&*m2))
                    .await
                    .ok()?
                    .ok()?;
                return None;
            }
        };
        self.wait_for_guess().await;
        self.outcome = Outcome::Failed;
        self.why = Turned::Unproved;
        let mut m3 = [0; CONFIRM_LEN];
        let exchange = async {
            stream.write_all(&*m2).await?;
            stream.read_exact(&mut m3).await
        };
        timeout_at(Deadline::now() + CONFIRM_TIME, exchange)
            .await
            .ok()?
            .ok()?;
        let accepted = responder.finish(&m3).ok()?;
        self.outcome = Outcome::Completed;
        Some(accepted)
    }
}

/// Reads and forgets, so that neither a reset nor its time tells what was wrong.
async fn discard_until(stream: &mut TcpStream, deadline: Deadline) {
    let mut buffer = [0; 4096];
    let mut discarded = 0;
    while discarded < MAX_DISCARDED {
        match timeout_at(deadline, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(len)) => discarded += len,
            Err(_) => return,
        }
    }
    tokio::time::sleep_until(deadline).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::handshake::{Initiator, InitiatorError};
    use crate::crypto::identity::Identity;
    use crate::crypto::kdf::{Group, NetworkName};
    use crate::crypto::secret::Passphrase;
    use crate::wire::packet::Role;

    struct Tracker {
        group: Group,
        identity: Identity,
    }

    impl Host for Tracker {
        fn local(&self) -> Local<'_> {
            Local {
                group: &self.group,
                identity: &self.identity,
                role: Role::Tracker,
                has_aes: false,
            }
        }

        fn envelopes(&self) -> Vec<EnvelopeKeys> {
            vec![EnvelopeKeys::open(&self.group)]
        }
    }

    #[tokio::test]
    async fn whoever_keeps_its_proof_to_itself_keeps_nobody_from_a_processor() {
        let passphrase = Passphrase::parse("a passphrase for tests").unwrap();
        let host = Arc::new(Tracker {
            group: Group::derive(&passphrase, NetworkName::default()),
            identity: Identity::generate(&mut OsRandom::new()),
        });
        let door = Doorkeeper {
            waiting: Arc::new(Semaphore::new(1)),
            ..Doorkeeper::new()
        };
        let listener = listen_tcp(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut visits = Vec::new();
        for number in 0..3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let (mut accepted, from) = listener.accept().await.unwrap();
            let (visitor, host) = (door.enter(from.ip()).unwrap(), Arc::clone(&host));
            tokio::spawn({
                let host = Arc::clone(&host);
                async move { visitor.shake_hands(&mut accepted, host).await.is_some() }
            });
            let envelope = EnvelopeKeys::open(&host.group);
            let random = &mut OsRandom::new();
            let (initiator, m1) = Initiator::start(host.local(), Role::Tracker, &envelope, random);
            stream.write_all(&*m1).await.unwrap();
            let mut m2 = Box::new([0; HELLO_LEN]);
            stream.read_exact(&mut *m2).await.unwrap();
            // We are as whom we called, which only a whole answer shows; m3 never comes.
            let answer = initiator.read_answer(&m2);
            let is_whole = matches!(answer, Ok(_) | Err(InitiatorError::Loop));
            assert!(is_whole, "visitor {number}: {:?}", answer.err());
            visits.push(stream);
        }
    }
}
