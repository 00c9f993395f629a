//! A member made of the library, which does what no p2pfs does.

use std::sync::Arc;
use std::time::Duration;

use p2pfs::crypto;
use p2pfs::crypto::identity::Identity;
use p2pfs::crypto::kdf::NetworkName;
use p2pfs::crypto::random::OsRandom;
use p2pfs::crypto::secret::Passphrase;
use p2pfs::net::{Doorkeeper, listen_tcp};
use p2pfs::peer::connection::{Reader, Writer, split};
use p2pfs::peer::control::{Control, Setup};
use p2pfs::peer::dial::dial;
use p2pfs::peer::enrol::Target;
use p2pfs::peer::listing;
use p2pfs::peer::membership::Membership;
use p2pfs::proto::backoff::Retry;
use p2pfs::wire::control::{Audience, Holder, Publication, PublicationKind};
use p2pfs::wire::id::ContentId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::PASSPHRASE;

/// Logged in at a tracker, and listening; gone when dropped.
pub(crate) struct Member {
    runtime: tokio::runtime::Runtime,
    membership: Membership,
    control: Control,
    listener: Option<tokio::net::TcpListener>,
    shutdown: CancellationToken,
}

impl Member {
    pub(crate) fn join(tracker: &str, name: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let secret = Passphrase::parse(PASSPHRASE).unwrap();
        let group = crypto::kdf::Group::derive(&secret, NetworkName::default());
        let membership = Membership::new(group, Identity::generate(&mut OsRandom::new()));
        let (host, port) = tracker.split_once(':').unwrap();
        let target = Target {
            host: host.to_owned(),
            port: port.parse().unwrap(),
            key: None,
            pin: None,
            pins: None,
        };
        let shutdown = CancellationToken::new();
        let (control, listener) = runtime.block_on(async {
            let listener = listen_tcp(Some("127.0.0.1".parse().unwrap()), 0).unwrap();
            let setup = Setup {
                target,
                membership: membership.clone(),
                user: name.parse().unwrap(),
                password: None,
                listening_port: listener.local_addr().unwrap().port(),
                retry: Retry::default(),
                is_neighbour: false,
                events: mpsc::channel(100).0,
                shutdown: shutdown.clone(),
            };
            (Control::join(setup).await.unwrap().0, listener)
        });
        Self {
            runtime,
            membership,
            control,
            listener: Some(listener),
            shutdown,
        }
    }

    /// Says that it has this file.
    pub(crate) fn publish(&self, name: &str, content: ContentId, len: u64) {
        self.publish_as(name, content, len, PublicationKind::File);
    }

    pub(crate) fn publish_as(
        &self,
        name: &str,
        content: ContentId,
        len: u64,
        kind: PublicationKind,
    ) {
        let name = name.parse().unwrap();
        let file = Publication {
            name,
            content,
            len,
            kind,
        };
        self.runtime
            .block_on(self.control.publish(file, Audience::EVERYBODY))
            .unwrap();
    }

    /// Answers everybody who connects with `answer`, each connection by itself.
    pub(crate) fn serve<F, A>(&mut self, answer: F)
    where
        F: Fn(Reader, Writer) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = self.listener.take().unwrap();
        let (host, answer) = (Arc::new(self.membership.clone()), Arc::new(answer));
        self.runtime.spawn(async move {
            let door = Doorkeeper::new();
            while let Ok((mut stream, from)) = listener.accept().await {
                let Some(visitor) = door.enter(from.ip()) else {
                    continue;
                };
                let (host, answer) = (Arc::clone(&host), Arc::clone(&answer));
                tokio::spawn(async move {
                    if let Some(accepted) = visitor.shake_hands(&mut stream, host).await {
                        let (reader, writer) = split(stream, accepted.keys.stream);
                        answer(reader, writer).await;
                    }
                });
            }
        });
    }

    /// Connects to somebody who has `content`.
    pub(crate) fn dial(&self, content: ContentId) -> (Reader, Writer) {
        self.block_on(async {
            let holders = listing::holders(&self.control, content).await.unwrap();
            dial(&self.membership, &holders[0]).await.unwrap()
        })
    }

    /// Whoever is logged in under this name.
    pub(crate) fn find(&self, name: &str) -> Holder {
        self.block_on(async {
            let mut here = listing::peers(&self.control).await.unwrap().into_iter();
            let here = here.find(|peer| peer.user.as_str() == name).unwrap();
            Holder {
                user: here.user,
                peer: here.peer,
                len: 0,
                addresses: here.addresses,
            }
        })
    }

    /// Connects to somebody; `None` when he takes no connection.
    pub(crate) fn call(&self, whom: &Holder) -> Option<(Reader, Writer)> {
        self.block_on(async { dial(&self.membership, whom).await.ok() })
    }

    /// Runs `task`, for a minute at the most.
    pub(crate) fn block_on<T>(&self, task: impl Future<Output = T>) -> T {
        let within = async { tokio::time::timeout(Duration::from_secs(60), task).await };
        self.runtime.block_on(within).unwrap()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
