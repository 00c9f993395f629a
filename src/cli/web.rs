//! `--web`, and `p2pfs web`: the HTTP interface of a running peer, its address and its token.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::args::{PeerArgs, WebArgs};
use super::executor::Executor;
use super::exit::{Class, Failure};
use super::{Context, setup};
use crate::ipc::{self, AskError, End, Replies, Request};
use crate::web::token::Token;
use crate::web::{self, Web};

/// What a running peer is asked.
pub(super) const COMMAND: &str = "web";

/// Where the interface of a peer is, once it is; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Interface(Arc<OnceLock<(SocketAddr, Token)>>);

impl Interface {
    /// Answers `p2pfs web`. The token goes through no socket: whoever may read it reads its file.
    pub(super) async fn answer(&self, request: &Request, replies: &Replies) -> End {
        let Some((address, token)) = self.0.get() else {
            let line = "the peer that runs here has no web interface; start it with --web";
            return End::failed(Class::NotFound.code(), line);
        };
        if request.arguments["reset"] == true
            && let Err(error) = token.reset()
        {
            return End::failed(Class::Local.code(), error.to_string());
        }
        replies
            .send(json!({"v": 1, "type": "web", "address": address}))
            .await;
        End::OK
    }
}

impl Context {
    /// The socket of the interface that is wanted, before anything else is done.
    ///
    /// # Errors
    /// When its address will not do, or cannot be had.
    pub(super) fn web_socket(&self, args: &PeerArgs) -> Result<Option<Web>, Failure> {
        let text = args.web.as_ref().or(self.setup.config.web.listen.as_ref());
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let address = web::parse_address(text).map_err(Failure::usage)?;
        let web = Web::bind(address).map_err(|error| {
            let line = format!("cannot listen on {address} for the web: {error}");
            Failure::new(Class::Network, line).hint("give another port: --web=127.0.0.1:7171")
        })?;
        Ok(Some(web))
    }

    /// Begins to answer, until `shutdown`.
    ///
    /// # Errors
    /// When there is no token to be had.
    pub(super) fn start_web(
        &self,
        web: Web,
        executor: &Executor,
        shutdown: CancellationToken,
    ) -> Result<(), Failure> {
        let dir = setup::state_dir(self.global(), "peer").filter(|_| executor.is_remembered());
        let dir = dir.ok_or_else(|| {
            Failure::usage("the web interface needs a state directory for its token")
                .hint("give --state-dir DIR")
        })?;
        let (address, token) = (web.address(), Token::open(&dir)?);
        let _ = executor.interface.0.set((address, token.clone()));
        let shared = web::Shared {
            peer: executor.peer().clone(),
            uploads: executor.peer().downloads_dir().to_owned(),
        };
        tokio::spawn(web.run(shared, token, shutdown));
        self.screen
            .object(&json!({"v": 1, "type": "web", "address": address, "url": null}))?;
        self.screen.text(&format!(
            "Web interface at http://{address}; p2pfs web prints the address with its token"
        ))
    }

    /// `p2pfs web`
    pub(super) async fn web(&self, args: WebArgs) -> Result<(), Failure> {
        let dir = setup::state_dir(self.global(), "peer")
            .ok_or_else(|| Failure::new(Class::NotFound, "there is no state directory"))?;
        let mut request = Request::new(COMMAND);
        request.arguments = json!({"reset": args.reset_token});
        let mut address = None;
        let heard = |line: Value| address = line["address"].as_str().map(str::to_owned);
        let asking = ipc::ask(&dir, &request, heard);
        let asked = tokio::select! {
            () = self.shutdown.token().cancelled() => return Err(self.interrupted()),
            asked = asking => asked,
        };
        match asked {
            Ok(End { code: 0, .. }) => {}
            Ok(end) => {
                let message = end.message.unwrap_or_default();
                return Err(Failure::new(Class::of_code(end.code), message));
            }
            Err(AskError::Nobody(_)) if args.reset_token => {
                Token::open(&dir)?.reset()?;
                self.screen
                    .note("the token is another one; no peer runs here");
                return Ok(());
            }
            Err(AskError::Nobody(_)) => {
                let line = "no peer runs with this state directory";
                return Err(Failure::new(Class::NotFound, line).hint("p2pfs peer --web starts one"));
            }
            Err(error) => return Err(error.into()),
        }
        self.show_address(&dir, &address.unwrap_or_default())
    }

    fn show_address(&self, dir: &Path, address: &str) -> Result<(), Failure> {
        let token = Token::open(dir)?.expose();
        // Behind the mark no browser sends it anywhere.
        let url = format!("http://{address}/#token={}", *token);
        self.screen.text(&url)?;
        self.screen
            .object(&json!({"v": 1, "type": "web", "address": address, "url": url}))?;
        if std::io::stdout().is_terminal() {
            self.show_code(&url)?;
        }
        Ok(())
    }
}
