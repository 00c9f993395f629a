//! Answers the connections of a listener, so many at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Pause after the system gave no connection, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers each of `listener`'s connections with what `serve` makes of it, at most `most` at a time, until
/// `shutdown`; one too many is closed unheard.
pub async fn serve_few<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    most: usize,
    shutdown: CancellationToken,
    serve: impl Fn(TcpStream) -> F,
) {
    let places = Arc::new(Semaphore::new(most));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let serving = shutdown.clone().run_until_cancelled_owned(serve(stream));
                    tokio::spawn(async move {
                        let _place = place;
                        let _ = serving.await;
                    });
                }
            }
            Err(error) => {
                debug!(%error, "no connection can be accepted now");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
