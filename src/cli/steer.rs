//! Commands that steer what runs: transfers, pause, resume, cancel, limit.

use serde_json::json;

use super::executor::Executor;
use super::exit::{Class, Failure};
use super::render;
use crate::config::parse_rate;
use crate::peer::{Order, State, Transfer};

impl Executor {
    pub(super) fn transfers(&self) -> Result<(), Failure> {
        let transfers = self.peer.transfers();
        for transfer in &transfers {
            self.screen.object(&render::transfer_json(transfer))?;
        }
        if transfers.is_empty() {
            self.screen.text("Nothing is being downloaded.")
        } else {
            self.screen
                .text(&render::transfers(&transfers, self.screen.width()))
        }
    }

    /// Tells downloads what to do, by their numbers; all of them when none is named, where that is harmless.
    pub(super) fn order(&self, ids: &[String], order: Order) -> Result<(), Failure> {
        let transfers = self.peer.transfers();
        let mut chosen = Vec::new();
        for id in ids {
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
        if chosen.is_empty() {
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
