use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use lockgate_command::{Denial, Judge, Outcome, Ticket, Verdict};
use russh::keys::PrivateKey;
use russh::server::{self, Auth, Handle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;

use crate::classify::{self, Start};
use crate::upstream::{self, HostKey, Upstream};
use crate::{SshError, relay::relay};

/// Exit status of a command that was refused: found, but not executable, as
/// shells have it (POSIX, 2.8.2 Exit Status for Commands).
const REFUSED: u32 = 126;

/// SSH_EXTENDED_DATA_STDERR (RFC 4254 section 5.2).
const STDERR: u32 = 1;

/// What a session needs that is not its protocol's business.
pub trait Surroundings: Clone + Send + Sync + 'static {
    /// A connected stream to the server.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects to the server, once per session.
    fn dial(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Waits until the record is on disk up to
    /// [`lockgate_command::Ruling::durable_at`]. An error refuses the command.
    fn durable(&self, position: u64) -> impl Future<Output = io::Result<()>> + Send;
}

/// Serves one client until it goes: each command is judged, then relayed to
/// the server or refused. Must run in a tokio runtime.
///
/// # Errors
/// When the client's connection fails. What goes wrong with the server is told
/// to the client, command by command.
pub async fn serve<C, E, J>(
    client: C,
    host_key: PrivateKey,
    upstream: Upstream,
    surroundings: E,
    judge: J,
) -> Result<(), SshError>
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: Surroundings,
    J: Judge + Send + 'static,
{
    let config = server::Config {
        keys: vec![host_key],
        ..server::Config::default()
    };
    let intercepted = Intercepted {
        judge: Arc::new(Mutex::new(judge)),
        channels: HashMap::new(),
        server: Arc::new(Server {
            upstream,
            surroundings,
            handle: OnceCell::new(),
        }),
    };
    server::run_stream(Arc::new(config), client, intercepted)
        .await?
        .await?;
    Ok(())
}

/// One client; russh calls it from a task of its own.
struct Intercepted<E, J> {
    judge: Arc<Mutex<J>>,
    /// Open channels on which nothing was started yet.
    channels: HashMap<ChannelId, Channel<Msg>>,
    server: Arc<Server<E>>,
}

/// The other side, dialled when the first command was allowed.
struct Server<E> {
    upstream: Upstream,
    surroundings: E,
    handle: OnceCell<russh::client::Handle<HostKey>>,
}

impl<E: Surroundings, J: Judge + Send + 'static> Intercepted<E, J> {
    fn start(
        &mut self,
        id: ChannelId,
        start: Start<'_>,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        // A channel starts one thing (RFC 4254 section 6.5).
        let Some(channel) = self.channels.remove(&id) else {
            return session.channel_failure(id);
        };
        let command = classify::command(start);
        let ruling = lock(&self.judge).judge(&command);
        let mut open = Open {
            judge: self.judge.clone(),
            ticket: ruling.ticket,
            outcome: Outcome::Aborted,
        };
        let line = match (ruling.verdict, start) {
            (Verdict::Allow, Start::Exec(line)) if command.statement.refusal.is_none() => {
                line.to_vec()
            }
            (Verdict::Allow | Verdict::Mask(_), _) => {
                // A judge that allows what cannot be read changes nothing; and
                // a command's output has no columns.
                open.ends(Outcome::Denied);
                return session.channel_failure(id);
            }
            (Verdict::Deny(denial) | Verdict::Hold(denial), _) => {
                open.ends(Outcome::Denied);
                return refuse(session, id, &denial);
            }
        };
        let (server, handle) = (self.server.clone(), session.handle());
        // russh waits for its handler; what waits for others has its own task.
        tokio::spawn(async move {
            if let Some(position) = ruling.durable_at
                && let Err(error) = server.surroundings.durable(position).await
            {
                open.ends(Outcome::Denied);
                return fail(
                    &handle,
                    id,
                    &format!("the command cannot be recorded: {error}"),
                )
                .await;
            }
            match server.run(&handle, channel, line).await {
                Ok(outcome) => open.ends(outcome),
                Err(error) => fail(&handle, id, &error.to_string()).await,
            }
        });
        Ok(())
    }
}

impl<E: Surroundings> Server<E> {
    async fn run(
        &self,
        handle: &Handle,
        channel: Channel<Msg>,
        line: Vec<u8>,
    ) -> Result<Outcome, SshError> {
        let login = || async { self.upstream.login(self.surroundings.dial().await?).await };
        let server = self.handle.get_or_try_init(login).await?;
        let upstream = upstream::exec(server, line).await?;
        let gone = |()| SshError::Protocol(russh::Error::SendError);
        handle.channel_success(channel.id()).await.map_err(gone)?;
        relay(handle, channel, upstream).await
    }
}

impl<E: Surroundings, J: Judge + Send + 'static> server::Handler for Intercepted<E, J> {
    type Error = russh::Error;

    // The kernel has said who calls; what the client offers proves less.
    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: server::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, Start::Exec(line), session)
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, Start::Shell, session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, Start::Subsystem(name), session)
    }

    // A variable such as LD_PRELOAD would change what a command does.
    async fn env_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn agent_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        session.channel_failure(id)?;
        Ok(false)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}

/// Closes a ticket exactly once, however its task ends.
struct Open<J: Judge> {
    judge: Arc<Mutex<J>>,
    ticket: Ticket,
    outcome: Outcome,
}

impl<J: Judge> Open<J> {
    /// How it ended; until this is said, it counts as aborted.
    fn ends(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl<J: Judge> Drop for Open<J> {
    fn drop(&mut self) {
        lock(&self.judge).close(self.ticket, &self.outcome);
    }
}

/// A judge that panicked in one command has recorded nothing false.
fn lock<J>(judge: &Mutex<J>) -> std::sync::MutexGuard<'_, J> {
    judge.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse(session: &mut Session, id: ChannelId, denial: &Denial) -> Result<(), russh::Error> {
    let text = format!("{}\n{}\n", denial.message, denial.hint);
    session.channel_success(id)?;
    session.extended_data(id, STDERR, text.into_bytes())?;
    session.exit_status_request(id, REFUSED)?;
    session.eof(id)?;
    session.close(id)
}

/// Tells the client that the server was not reached. Its own going away
/// meanwhile needs no report.
async fn fail(handle: &Handle, id: ChannelId, why: &str) {
    tracing::warn!(why, "a command did not reach the server");
    let text = format!("lockgate: {why}\n").into_bytes();
    let _ = handle.channel_success(id).await;
    let _ = handle.extended_data(id, STDERR, text).await;
    let _ = handle.exit_status_request(id, REFUSED).await;
    let _ = handle.close(id).await;
}
