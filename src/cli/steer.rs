//! Commands that steer what runs: transfers, pause, resume, cancel, limit.

use serde_json::json;

use super::command::Direction;
use super::executor::Executor;
use super::exit::{Class, Failure};
use super::render;
use crate::config::parse_rate;
use crate::peer::{Limits, Order, State, Transfer};

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
            }
        }
        Ok(())
    }

    pub(super) fn limit(
        &self,
        direction: Option<Direction>,
        rate: Option<&str>,
    ) -> Result<(), Failure> {
        let mut limits = self.peer.limits();
        if let Some(rate) = rate {
            let rate = parse_rate(rate).map_err(Failure::usage)?;
            match direction {
                Some(Direction::Up) => limits.up = rate,
                Some(Direction::Down) => limits.down = rate,
                None => {
                    limits = Limits {
                        up: rate,
                        down: rate,
                    }
                }
            }
            self.peer.set_limits(limits);
        }
        let shown = |rate: Option<u64>| {
            rate.map_or_else(
                || "no limit".to_owned(),
                |rate| format!("{}/s", render::size(rate)),
            )
        };
        self.screen.object(&json!({
            "v": 1, "type": "limits", "up": limits.up, "down": limits.down,
        }))?;
        self.screen.text(&format!(
            "Uploads: {}; downloads: {}",
            shown(limits.up),
            shown(limits.down)
        ))
    }
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
