//! Commands that steer what runs: transfers, pause, resume, cancel, limit.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::executor::{Executor, all_there};
use super::exit::{Class, Failure};
use super::render;
use crate::config::parse_rate;
use crate::peer::{Order, SendError, Sent, State, Transfer};

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        let class = match error {
            SendError::Talk(error) => return error.into(),
            SendError::Share(_) => Class::Local,
            SendError::Already { .. } | SendError::TooMany | SendError::TooManyReaders(_) => {
                Class::Usage
            }
            SendError::TakenBack => Class::Interrupted,
            SendError::Cancelled(_) => Class::Refused,
            SendError::Failed(_) => Class::Failed,
        };
        Self::new(class, error.to_string())
    }
}

impl Executor {
    pub(super) fn transfers(&self) -> Result<(), Failure> {
        let transfers = self.peer.transfers();
        for transfer in &transfers {
            self.screen.object(&render::transfer_json(transfer))?;
        }
        let sends = self.peer.sends();
        for sending in &sends {
            self.screen.object(&render::sending_json(sending))?;
        }
        if !transfers.is_empty() {
            self.screen
                .text(&render::transfers(&transfers, self.screen.width()))?;
        } else if sends.is_empty() {
            self.screen.text("Nothing is being downloaded.")?;
        }
        if sends.is_empty() {
            return Ok(());
        }
        self.screen
            .text(&render::sends(&sends, self.screen.width()))
    }

    /// Takes back what is being sent: `cancel s1`. `None` when that is no number of such a thing.
    fn take_back(&self, text: &str) -> Option<Result<(), Failure>> {
        let id = text.strip_prefix('s')?.parse().ok()?;
        let sends = self.peer.sends();
        let Some(sending) = sends.iter().find(|sending| sending.id == id) else {
            let line = format!("nothing is being sent as {text}; transfers lists it");
            return Some(Err(Failure::new(Class::NotFound, line)));
        };
        let _ = self.peer.take_back(id);
        let line = format!("Taken back {text}, {}", sending.name);
        let said = self.screen.text(&line).and_then(|()| {
            self.screen.object(&json!({
                "v": 1, "type": "result", "command": "cancel", "ok": true, "no": text,
                "name": sending.name, "id": sending.content.map(|id| id.to_string()),
            }))
        });
        Some(said)
    }

    /// Offers files and folders to somebody, and waits until they are there.
    ///
    /// # Errors
    /// When that is nobody, one of them is not accepted, or does not get there.
    pub async fn send(&self, user: &str, paths: &[PathBuf], wait: Duration) -> Result<(), Failure> {
        all_there(paths)?;
        let to = self.addressee(user).await?;
        let mut sending = JoinSet::new();
        for (number, path) in paths.iter().enumerate() {
            self.interest.in_sending(path);
            let (peer, to, path) = (self.peer.clone(), to.clone(), path.clone());
            sending.spawn(async move { (number, peer.send(to, &path, wait).await) });
        }
        let (mut failures, mut done) = (Vec::new(), 0);
        while let Some(ended) = sending.join_next().await {
            match ended {
                Ok((number, Ok(sent))) => {
                    done += 1;
                    let name = paths[number].file_name().unwrap_or_default();
                    self.screen.object(&json!({
                        "v": 1, "type": "result", "command": "send", "ok": true, "user": to.0.as_str(),
                        "name": name.to_string_lossy(), "done": sent == Sent::Done,
                    }))?;
                }
                Ok((_, Err(error))) => failures.push(Failure::from(error)),
                Err(error) => failures.push(Failure::new(Class::Failed, error.to_string())),
            }
        }
        self.conclude(done + failures.len(), failures)
    }

    /// Tells downloads what to do, by their numbers; all of them when none is named, where that is harmless.
    pub(super) fn order(&self, ids: &[String], order: Order) -> Result<(), Failure> {
        let transfers = self.peer.transfers();
        let (mut chosen, mut taken_back) = (Vec::new(), false);
        for id in ids {
            if order == Order::Cancel
                && let Some(taken) = self.take_back(id)
            {
                taken?;
                taken_back = true;
                continue;
            }
            let found = transfers
                .iter()
                .find(|transfer| transfer.id.to_string() == *id);
            let missing = || {
                Failure::new(
                    Class::NotFound,
                    format!("there is no download {id}; transfers lists them"),
                )
            };
            chosen.push(found.ok_or_else(missing)?);
        }
        if ids.is_empty() {
            chosen.extend(transfers.iter().filter(|transfer| applies(transfer, order)));
        }
        if chosen.is_empty() && !taken_back {
            return Err(Failure::new(
                Class::NotFound,
                "there is no download to which this applies",
            ));
        }
        for transfer in chosen {
            if self.peer.order(transfer.id, order) {
                let done = match order {
                    Order::Run => "Resumed",
                    Order::Pause => "Paused",
                    Order::Cancel => "Cancelled",
                };
                let (id, name) = (transfer.id, &transfer.file.name);
                self.screen.text(&format!("{done} {id}, {name}"))?;
                let command = match order {
                    Order::Run => "resume",
                    Order::Pause => "pause",
                    Order::Cancel => "cancel",
                };
                self.screen.object(&json!({
                    "v": 1, "type": "result", "command": command, "ok": true, "no": id,
                    "name": name.as_str(), "id": transfer.file.content.to_string(),
                }))?;
            }
        }
        Ok(())
    }

    /// `limit`, `limit up`, `limit up RATE`, `limit RATE`.
    pub(super) fn limit(&self, words: &[String]) -> Result<(), Failure> {
        let mut limits = self.peer.limits();
        let rate = |text: &str| parse_rate(text).map_err(Failure::usage);
        let direction = |text: &str| match text.to_lowercase().as_str() {
            "up" => Some(Direction::Up),
            "down" => Some(Direction::Down),
            _ => None,
        };
        let mut is_both = false;
        match words {
            [] => {}
            [one] if direction(one).is_some() => {}
            [both] => {
                let rate = rate(both).map_err(|failure| failure.hint("or up, or down"))?;
                (limits.up, limits.down) = (rate, rate);
                is_both = true;
            }
            [one, text, ..] => match direction(one) {
                Some(Direction::Up) => limits.up = rate(text)?,
                Some(Direction::Down) => limits.down = rate(text)?,
                None => {
                    let line = format!("\"{one}\" is no direction");
                    return Err(Failure::usage(line).hint("there are up and down"));
                }
            },
        }
        self.peer.set_limits(limits);
        let shown = |rate: Option<u64>| {
            rate.map_or_else(
                || "no limit".to_owned(),
                |rate| format!("{}/s", render::size(rate)),
            )
        };
        self.screen.object(&json!({
            "v": 1, "type": "limits", "up": limits.up, "down": limits.down,
        }))?;
        let both = if is_both { "Both directions. " } else { "" };
        self.screen.text(&format!(
            "{both}Uploads: {}; downloads: {}",
            shown(limits.up),
            shown(limits.down)
        ))
    }
}

/// Which way bytes go.
#[derive(Clone, Copy)]
enum Direction {
    /// Out, to others.
    Up,
    /// In, from others.
    Down,
}

/// Does the order change anything, without being asked for by number?
fn applies(transfer: &Transfer, order: Order) -> bool {
    match order {
        Order::Run => transfer.state == State::Paused,
        Order::Pause => transfer.state != State::Paused,
        // What is lost by it is asked for by its number.
        Order::Cancel => false,
    }
}
