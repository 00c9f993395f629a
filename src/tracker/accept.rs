//! Handshakes over TCP, within limits; each leaves a new session behind.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::engine::Engine;
use super::metrics::Metrics;
use super::notices::Notices;
use crate::crypto::handshake::{Accepted, Local};
use crate::crypto::identity::Identity;
use crate::crypto::kdf::{EnvelopeKeys, Group, MemberKey};
use crate::crypto::random::OsRandom;
use crate::crypto::stream::has_aes_hardware;
use crate::net::{Doorkeeper, Host, Turned, unix_ms};
use crate::proto::endpoint::Admission;
use crate::proto::neighbours::is_near;
use crate::wire::frame::Welcome;
use crate::wire::packet::{FRAME_HEADER_LEN, Role, TAG_LEN};

/// WELCOME is taken, and the stream ended, within this time.
const WELCOME_TIME: Duration = Duration::from_secs(5);
/// Pause after the system gave no connection, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the tracker is, in handshakes.
pub(super) struct Lobby {
    pub(super) group: Group,
    pub(super) identity: Identity,
    pub(super) member_key: MemberKey,
    pub(super) has_aes: bool,
    /// LOGIN needs a password.
    pub(super) needs_password: bool,
    pub(super) metrics: Arc<Metrics>,
    pub(super) notices: Notices,
    /// Somebody runs it for its own sake, and wants to see who guesses at it.
    pub(super) is_watched: bool,
}

impl Lobby {
    pub(super) fn new(
        group: Group,
        identity: Identity,
        member_key: MemberKey,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            group,
            identity,
            member_key,
            has_aes: has_aes_hardware(),
            needs_password: false,
            metrics,
            notices: Notices::new(Instant::now()),
            is_watched: true,
        }
    }
}

impl Host for Lobby {
    fn local(&self) -> Local<'_> {
        Local {
            group: &self.group,
            identity: &self.identity,
            role: Role::Tracker,
            has_aes: self.has_aes,
        }
    }

    fn envelopes(&self) -> Vec<EnvelopeKeys> {
        vec![EnvelopeKeys::open(&self.group)]
    }

    fn turned_away(&self, from: IpAddr, why: Turned) {
        self.metrics.turned_away(why);
        if let Some(notice) = self.notices.note(from, why) {
            notice.log(self.is_watched);
        }
    }
}

/// Accepts until `shutdown`.
pub(super) async fn accept_all(
    listener: TcpListener,
    lobby: Arc<Lobby>,
    engine: Arc<Engine>,
    shutdown: CancellationToken,
) {
    let door = Doorkeeper::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                // The small tracker of one peer is for the networks that it is on.
                let is_meant = !engine.service().has_owner() || is_near(from.ip());
                let may_enter = is_meant && engine.has_room_for(from.ip());
                let visitor = may_enter.then(|| door.enter(from.ip())).flatten();
                let Some(visitor) = visitor else {
                    lobby.turned_away(from.ip(), Turned::Limited);
                    continue;
                };
                let (lobby, engine) = (Arc::clone(&lobby), Arc::clone(&engine));
                tokio::spawn(async move {
                    let mut stream = stream;
                    let shaken = visitor.shake_hands(&mut stream, Arc::clone(&lobby)).await;
                    if let Some(accepted) = shaken {
                        welcome(stream, from, accepted, &lobby, &engine).await;
                    }
                });
            }
            Err(error) => {
                debug!(%error, "cannot accept now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn welcome(
    mut stream: TcpStream,
    from: SocketAddr,
    accepted: Accepted,
    lobby: &Lobby,
    engine: &Engine,
) {
    if accepted.role != Role::Peer {
        return;
    }
    let keys = accepted.keys;
    lobby.metrics.welcomed();
    debug!(%from, peer = ?keys.remote, "handshake");
    let admission = Admission {
        peer: keys.remote,
        keys: keys.datagram,
        resume: keys.resume,
        ip: from.ip(),
        listening_port: accepted.listening_port,
    };
    let Some(session) = engine.admit(admission, &mut OsRandom::new()) else {
        return;
    };
    let rhythm = engine.endpoint().rhythm();
    let welcome = Welcome {
        session,
        member_key: *lobby.member_key.0.expose(),
        unix_ms: unix_ms(),
        heartbeat: rhythm.interval,
        silence: rhythm.silence,
        needs_password: lobby.needs_password,
    };
    let plaintext = zeroize::Zeroizing::new(welcome.encode());
    let mut frame = [&[0; FRAME_HEADER_LEN][..], &plaintext, &[0; TAG_LEN]].concat();
    let (mut sealer, _) = keys.stream.into_halves();
    if sealer.seal(true, &mut frame).is_err() {
        return;
    }
    let farewell = async {
        stream.write_all(&frame).await?;
        // The peer's FINAL carries nothing; the session lives on UDP.
        stream.read(&mut [0; 64]).await
    };
    let _ = timeout(WELCOME_TIME, farewell).await;
}
