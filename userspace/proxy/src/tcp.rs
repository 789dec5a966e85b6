//! The adapter of opaque targets: one decision per connection, and a record of
//! how much went each way.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use lockgate_audit::Claims;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::counters::Session;
use crate::judge::SessionJudge;
use crate::stream::{Side, Stream};
use crate::worker::{Intercepted, Worker};

/// Serves one client from its first byte to its last. A client that is
/// refused sees a reset, since nothing can be said in an unknown protocol.
pub(crate) async fn serve(worker: &Rc<Worker>, intercepted: Intercepted, socket: TcpStream) {
    let started = Instant::now();
    let connection = intercepted.connection;
    match begin(worker, &intercepted).await {
        Ok(upstream) => {
            let mut client = Side::new(Stream::Plain(socket));
            let mut server = Side::new(Stream::Plain(upstream));
            let reason = match relay(&mut client, &mut server).await {
                Ok(()) => "closed".to_owned(),
                Err(error) => error.to_string(),
            };
            worker
                .recorder
                .closed(connection, &reason, &client, &server, started);
        }
        Err(reason) => {
            worker.shared.counters.refused.fetch_add(1, Relaxed);
            let Intercepted {
                workload,
                target,
                origin,
                ..
            } = &intercepted;
            tracing::warn!(%connection, %workload, target = %target.name, %reason, "refused");
            worker
                .recorder
                .refused(connection, workload, Some(&target.name), origin, &reason)
                .await;
            Stream::Plain(socket).reset();
        }
    }
}

async fn begin(worker: &Rc<Worker>, intercepted: &Intercepted) -> Result<TcpStream, String> {
    worker
        .recorder
        .ready()
        .await
        .map_err(|why| why.to_string())?;
    let settings = worker.settings();
    let limit = Duration::from_secs(settings.bundle.config.limits.startup_s.into());
    let judge = SessionJudge::new(worker, &settings, intercepted);
    judge
        .connected(&intercepted.origin, Claims::default())
        .map_err(|why| why.to_string())?;
    judge
        .may_connect()
        .map_err(|denial| denial.message.clone())?;
    let connection = intercepted.connection;
    let upstream = tokio::time::timeout(limit, worker.shared.gate.dial(connection))
        .await
        .map_err(|_| format!("the server did not answer within {} s", limit.as_secs()))?
        .map_err(|why| why.to_string())?;
    let upstream = crate::stream::to_tokio(upstream).map_err(|why| why.to_string())?;
    worker.shared.counters.session_begins(
        connection,
        Session::new(intercepted, String::new(), String::new()),
    );
    Ok(upstream)
}

/// Both ways until both ends have said their last byte; half-closes are
/// passed on.
async fn relay(client: &mut Side, server: &mut Side) -> std::io::Result<()> {
    let mut passed = (false, false);
    loop {
        if !client.input.is_empty() {
            let bytes = client.input.split();
            server.output.unsplit(bytes);
        }
        if !server.input.is_empty() {
            let bytes = server.input.split();
            client.output.unsplit(bytes);
        }
        if client.ended && server.output.is_empty() && !passed.0 {
            server.stream.shutdown().await?;
            passed.0 = true;
        }
        if server.ended && client.output.is_empty() && !passed.1 {
            client.stream.shutdown().await?;
            passed.1 = true;
        }
        if passed == (true, true) {
            return Ok(());
        }
        crate::stream::progress(client, server).await?;
    }
}
