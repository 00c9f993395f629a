//! Carries out commands that come through the socket of a peer.
//!
//! Only a peer that stays takes them: what has one thing to do would take others' downloads with it when it
//! ends. A download that was asked for is the peer's from then on, and goes on when the one who asked has gone.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::client::Outlet;
use super::command::Command;
use super::executor::{Executor, Patience};
use super::exit::{Class, Failure};
use super::place::Place;
use super::screen::{Screen, Style};
use super::status::{self, Presence};
use super::telling::{self, Told};
use super::{render, web};
use crate::crypto::kdf::NetworkName;
use crate::ipc::{Client, End, Host, Replies, Request};

/// Answers for a peer.
pub struct PeerHost {
    /// Works with the peer; what was searched last through the socket is remembered with it.
    pub executor: Executor,
    /// Whether it has its tracker.
    pub presence: Arc<Presence>,
    /// What it tells by itself.
    pub told: Told,
    /// Since when it runs.
    pub since: Timestamp,
    /// The network that it has joined.
    pub network: NetworkName,
    /// It stays until somebody ends it.
    pub stays: bool,
}

impl Host for PeerHost {
    async fn answer(&self, request: Request, replies: Replies) -> End {
        if request.command == status::COMMAND {
            let now = status::of_peer(self.executor.peer(), &self.presence, self.since);
            replies.send(now).await;
            return End::OK;
        }
        if request.command == web::COMMAND {
            return self.executor.interface.answer(&request, &replies).await;
        }
        let Some(command) = command_of(&request) else {
            return status::unknown(&request.command);
        };
        let done = match self.check(&request.client).await {
            Ok(()) => self.run(command, &request.client, &replies).await,
            Err(failure) => Err(failure),
        };
        done.map_or_else(end_of, |()| End::OK)
    }
}

impl PeerHost {
    /// Is this the peer that is meant, and one that takes commands?
    async fn check(&self, client: &Client) -> Result<(), Failure> {
        if !self.stays {
            return Err(Failure::new(
                Class::Held,
                "what runs with this state directory has one thing to do and takes no commands",
            ));
        }
        let other = |what: &str, asked: &str| {
            let (what, asked) = (what.to_owned(), asked.to_owned());
            Failure::usage(format!(
                "the peer that runs here has joined {what}, not {asked}"
            ))
            .hint("--standalone asks without it, --state-dir DIR another one")
        };
        if let Some(asked) = &client.network
            && asked != self.network.as_str()
        {
            let own = format!("the network {}", self.network.as_str());
            return Err(other(&own, asked));
        }
        let Some(asked) = &client.tracker else {
            return Ok(());
        };
        let peer = self.executor.peer();
        let (host, port) = match Place::parse(asked)? {
            Place::Host(host, port) => (host, port),
            Place::Nowhere if peer.is_alone() => return Ok(()),
            // Whichever it has found, or was told.
            Place::Auto if !peer.is_alone() => return Ok(()),
            Place::Auto | Place::Nowhere => return Err(other(&peer.whereabouts(), asked)),
        };
        let own = Place::parse(&peer.tracker_address()).ok();
        let is_same = own == Some(Place::Host(host.clone(), port))
            || tokio::net::lookup_host((host, port))
                .await
                .is_ok_and(|mut found| {
                    let own = peer.tracker();
                    let own = own.map(|(at, _)| (at.ip().to_canonical(), at.port()));
                    found.any(|it| Some((it.ip().to_canonical(), it.port())) == own)
                });
        if is_same {
            Ok(())
        } else {
            Err(other(&peer.whereabouts(), asked))
        }
    }

    async fn run(
        &self,
        command: Command,
        client: &Client,
        replies: &Replies,
    ) -> Result<(), Failure> {
        let style = if client.json {
            Style::Json
        } else {
            Style::Text
        };
        let (outlet, mut lines) = Outlet::new(client);
        let screen = Screen::of_client(style, client.quiet, outlet);
        let executor = self.executor.for_client(screen.clone());
        let interest = executor.interest.clone();
        let mut events = self.told.listen();
        let (telling, telling_screen) = (self.executor.clone(), screen.clone());
        let outlives = matches!(command, Command::Download { .. });
        if let Command::Add(args) = &command {
            args.paths.iter().for_each(|path| interest.in_path(path));
        }
        let mut running = tokio::spawn(async move {
            let done = executor.run(command).await;
            if telling_screen.is_gone()
                && let Err(failure) = &done
            {
                telling.screen.tell(failure);
            }
            done
        });
        // Whoever has gone wants no more than downloads.
        let ending = (!outlives).then(|| AbortOnDrop(running.abort_handle()));
        let mut milestones = render::Milestones::default();
        let done = loop {
            tokio::select! {
                biased;
                Some(line) = lines.recv() => {
                    replies.send(line).await;
                }
                event = events.recv() => match event {
                    Ok(event) if interest.covers(&event) => {
                        telling::show(&event, &screen, &mut milestones, Patience::Retries);
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break (&mut running).await,
                },
                done = &mut running => break done,
            }
        };
        drop(ending);
        drain(&mut lines, replies).await;
        done.unwrap_or_else(|error| Err(Failure::new(Class::Failed, error.to_string())))
    }
}

async fn drain(lines: &mut mpsc::UnboundedReceiver<Value>, replies: &Replies) {
    while let Ok(line) = lines.try_recv() {
        replies.send(line).await;
    }
}

/// Ends a task with the one who wanted it.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The command of a request; `None` for what there is not, and for what is the prompt's alone.
fn command_of(request: &Request) -> Option<Command> {
    let mut object = json!({"command": request.command});
    if !request.arguments.is_null() {
        object["arguments"] = request.arguments.clone();
    }
    let command = serde_json::from_value(object).ok()?;
    match command {
        Command::Help { .. }
        | Command::Login
        | Command::Quit
        | Command::ListUnder { .. }
        | Command::Unlock { .. } => None,
        command => Some(command),
    }
}

/// The request of a command.
#[must_use]
pub fn request_of(command: &Command, client: Client) -> Option<Request> {
    let Value::Object(mut object) = serde_json::to_value(command).ok()? else {
        return None;
    };
    let mut request = Request::new(object.get("command")?.as_str()?);
    request.arguments = object.remove("arguments").unwrap_or_default();
    request.client = client;
    Some(request)
}

fn end_of(failure: Failure) -> End {
    End {
        code: failure.class.code(),
        message: Some(failure.message),
        hint: failure.hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command::parse;

    #[test]
    fn a_command_is_the_same_behind_the_socket() {
        for line in [
            "add a b --as x --for 2h",
            "add a --lock",
            "list ana --long",
            "list --all --sort size",
            "all_files",
            "search a b --limit 3 --ext mp4 --min-size 1MiB",
            "download a --from bob --out d -b",
            "download --id 1a2b",
            "transfers",
            "pause",
            "resume 1",
            "cancel 1 2",
            "limit up 5MiB",
            "peers --all",
            "lap",
            "info a",
            "id",
            "trust",
            "connect ana --wait 5s",
            "disconnect",
            "msg ana it's \"me\"",
            "all hi",
            "accept ana",
            "deny",
            "who",
            "trust ana aaaa-aaaa-aaaa-aaaa",
            "untrust ana",
            "block ana",
            "unblock ana",
            "verify ana",
        ] {
            let command = parse(line).unwrap().unwrap();
            let request = request_of(&command, Client::default()).unwrap();
            let line = serde_json::to_string(&request).unwrap();
            let heard = serde_json::from_str(&line).unwrap();
            assert_eq!(command_of(&heard), Some(command), "{line}");
        }
        for line in ["quit", "help", "login", "unlock a"] {
            let command = parse(line).unwrap().unwrap();
            let request = request_of(&command, Client::default()).unwrap();
            assert_eq!(command_of(&request), None, "{line} is the prompt's alone");
        }
        assert_eq!(command_of(&Request::new("dance")), None);
    }
}
