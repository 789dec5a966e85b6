//! The adapter of PostgreSQL: bytes from `lockgate_wire_postgres`, meaning
//! from `lockgate_sql`, decisions from the judge.
//!
//! ```text
//! startup   the client's first messages, TLS, as whom it logs in
//! upstream  dialling, TLS, login at the server, what its names mean
//! session   the relay: every command decided before it leaves
//! options   settings that come with the startup
//! names     catalogues, and what statements mean under them
//! cancel    keys that cancel a running command
//! ```

mod cancel;
mod error;
mod names;
mod options;
mod session;
mod startup;
mod upstream;

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;

pub(crate) use cancel::CancelKeys;
pub(crate) use names::Databases;

use crate::stream::Side;
use crate::worker::{Intercepted, Worker};
use error::StartupError;
use session::Session;

/// The protocol's name in TLS (ALPN), as registered with IANA.
pub(crate) const ALPN: &str = "postgresql";

/// Serves one client from its first byte to its last.
pub(crate) async fn serve(worker: &Rc<Worker>, intercepted: Intercepted, socket: TcpStream) {
    let settings = worker.settings();
    let patience = Duration::from_secs(settings.bundle.config.limits.startup_s.into());
    let mut client = None;
    // In a box of its own, since it is large and a session lives long.
    let begin = Box::pin(begin(worker, &settings, &intercepted, socket, &mut client));
    let begun = tokio::time::timeout(patience, begin)
        .await
        .unwrap_or(Err(StartupError::TooSlow(patience)));
    match begun {
        Ok(Some(session)) => session.run().await,
        Ok(None) => {}
        Err(error) => refuse(worker, &intercepted, client, error).await,
    }
}

/// From accept to a session; none for a cancel request, which has no session.
/// `client` keeps the client's side while the server is not there yet, so that
/// whatever goes wrong can be told to it.
async fn begin(
    worker: &Rc<Worker>,
    settings: &std::sync::Arc<crate::settings::Settings>,
    intercepted: &Intercepted,
    socket: TcpStream,
    client: &mut Option<Side>,
) -> Result<Option<Session>, StartupError> {
    worker.recorder.ready().await?;
    let message = match startup::greet(worker, intercepted, socket, client).await? {
        startup::Greeting::Session(message) => message,
        startup::Greeting::Cancel(key, client) => {
            // There is no answer either way, but an end that TLS knows as one.
            let forwarded = cancel::forward(worker, intercepted, &key).await;
            client.close().await;
            forwarded?;
            return Ok(None);
        }
    };
    Session::begin(worker, settings, intercepted, message, client)
        .await
        .map(Some)
}

/// Tells the client and the record why there is no session.
async fn refuse(
    worker: &Rc<Worker>,
    intercepted: &Intercepted,
    client: Option<Side>,
    error: StartupError,
) {
    let connection = intercepted.connection;
    worker.shared.counters.refused.fetch_add(1, Relaxed);
    let target = Some(&intercepted.target.name);
    let reason = error.to_string();
    tracing::warn!(%connection, workload = %intercepted.workload, target = %intercepted.target.name, %reason, "no session");
    worker
        .recorder
        .refused(
            connection,
            &intercepted.workload,
            target,
            &intercepted.origin,
            &reason,
        )
        .await;
    let Some(mut client) = client else { return };
    let mut answer = BytesMut::new();
    error.answer(&mut answer);
    client.output.extend_from_slice(&answer);
    client.close().await;
}
