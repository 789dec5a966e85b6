use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lockgate_command::ConnectionId;
use lockgate_config::Bundle;
use lockgate_ipc::{
    Channel, ChannelError, Dialogue, KeeperToProxy, ProxyToKeeper, Reply, to_memfd,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};

use crate::attested::{Attested, Generation, Purpose};
use crate::ca::{HostCa, own_leaf};
use crate::catalogue::{Access, Catalogues, Via};
use crate::credential::Credentials;
use crate::gate::Gate;
use crate::record::{Record, Writer};

/// gate tells keeper of a connection before the proxy hears of it, but the two
/// come by two channels: how long to wait for gate's word.
const ATTESTED_WITHIN: Duration = Duration::from_secs(1);

/// Questions of one proxy that are answered at the same time; the next wait in
/// its channel.
const QUESTIONS: usize = 256;

/// Answers the questions of proxies.
pub(crate) struct Keeper {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ca: Mutex<HostCa>,
    pub(crate) record: Record,
    pub(crate) catalogues: Catalogues,
    pub(crate) gate: Gate,
}

/// What the parent and gate have said.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Told whenever gate attests a connection.
    pub(crate) attests: Notify,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) attested: Attested,
    pub(crate) credentials: Credentials,
    /// Numbers of gate and proxy, as the parent tells them.
    pub(crate) others: Value,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns once gate has said something of `connection`, or is not going to.
    async fn told_of(&self, connection: ConnectionId) {
        let told = async {
            loop {
                let mut notified = std::pin::pin!(self.attests.notified());
                // Before the look, so that nothing falls in between.
                notified.as_mut().enable();
                if self.state().attested.knows(connection) {
                    return;
                }
                notified.await;
            }
        };
        // Who is still unknown then is refused by whoever asked.
        let _ = tokio::time::timeout(ATTESTED_WITHIN, told).await;
    }
}

impl Keeper {
    /// Answers one proxy until it ends.
    pub(crate) async fn serve(self: Arc<Self>, channel: Arc<Channel>, proxy: Generation) {
        let questions = Arc::new(Semaphore::new(QUESTIONS));
        let end = loop {
            let Ok(permit) = questions.clone().acquire_owned().await else {
                break ChannelError::Closed;
            };
            match channel.receive::<ProxyToKeeper>().await {
                Ok((ProxyToKeeper { request, ask }, _)) => {
                    let (keeper, channel) = (self.clone(), channel.clone());
                    tokio::spawn(async move {
                        let (reply, fd) = keeper.answer(ask, proxy).await;
                        if request != 0 {
                            // A proxy that ended meanwhile does not need it.
                            let _ = channel.send(&KeeperToProxy { request, reply }, fd).await;
                        }
                        drop(permit);
                    });
                }
                Err(error) => break error,
            }
        };
        tracing::warn!(error = %end, "the channel to a proxy ended");
        let what = format!("the channel to a proxy ended: {end}");
        self.record.note(what);
        let mut state = self.shared.state();
        let State {
            attested,
            credentials,
            ..
        } = &mut *state;
        attested.proxy_ended(proxy);
        credentials.retain(|connection| attested.knows(connection));
    }

    async fn answer(&self, ask: Dialogue, proxy: Generation) -> (Reply, Option<OwnedFd>) {
        let result = match ask {
            Dialogue::Segment { worker } => {
                let writer = Writer {
                    generation: proxy,
                    worker,
                };
                let segment = self.record.segment(writer).await;
                segment.map(|(segment, fd)| (Reply::Segment { segment }, Some(fd)))
            }
            // Whether a segment is done is seen at its descriptor.
            Dialogue::SegmentFull { .. } => Ok((Reply::Verified, None)),
            Dialogue::Catalogue {
                connection,
                target,
                database,
                max_age_ms,
            } => {
                self.shared.told_of(connection).await;
                let max_age = Duration::from_millis(max_age_ms.into());
                let access = self.access(connection, proxy, target.as_str(), database);
                self.catalogue(access, max_age).await
            }
            Dialogue::Leaf {
                connection,
                target,
                // The leaf has every name of the target, and no other.
                server_name: _,
            } => {
                self.shared.told_of(connection).await;
                let leaf = self.leaf(connection, proxy, target.as_str());
                leaf.map(|reply| (reply, None))
            }
            Dialogue::Login { connection, target } => {
                self.shared.told_of(connection).await;
                let login = self.login(connection, proxy, target.as_str());
                login.map(|reply| (reply, None))
            }
            Dialogue::ScramContinue {
                connection,
                server_first,
            } => {
                let proof = self.prove(connection, proxy, server_first).await;
                proof.map(|reply| (reply, None))
            }
            Dialogue::ScramStart { connection, .. }
            | Dialogue::ScramFinish { connection, .. }
            | Dialogue::Password { connection, .. } => {
                let step = self.login_step(connection, proxy, ask);
                step.map(|reply| (reply, None))
            }
        };
        result.unwrap_or_else(|why| {
            tracing::warn!(%why, "refused to a proxy");
            (Reply::Refused(why), None)
        })
    }

    fn login(
        &self,
        connection: ConnectionId,
        proxy: Generation,
        target: &str,
    ) -> Result<Reply, String> {
        let mut state = self.shared.state();
        let bundle = state.bundle.clone();
        let found = state
            .attested
            .at_target(connection, proxy, target, &bundle, Purpose::Secret)
            .map_err(text)?;
        let workload = found.known.workload.as_str();
        state
            .credentials
            .login(connection, workload, found.target)
            .map_err(text)
    }

    fn login_step(
        &self,
        connection: ConnectionId,
        proxy: Generation,
        ask: Dialogue,
    ) -> Result<Reply, String> {
        let mut state = self.shared.state();
        state.attested.belongs(connection, proxy).map_err(text)?;
        let credentials = &mut state.credentials;
        let result = match ask {
            Dialogue::ScramStart {
                channel_binding,
                binding_unoffered,
                ..
            } => credentials.scram_start(connection, channel_binding, binding_unoffered),
            Dialogue::ScramFinish { server_final, .. } => {
                credentials.scram_finish(connection, &server_final)
            }
            Dialogue::Password {
                md5_salt,
                tls_verified,
                ..
            } => credentials.password(connection, md5_salt, tls_verified),
            Dialogue::Login { .. }
            | Dialogue::ScramContinue { .. }
            | Dialogue::Leaf { .. }
            | Dialogue::Catalogue { .. }
            | Dialogue::Segment { .. }
            | Dialogue::SegmentFull { .. } => return Err("not a step of a login".into()),
        };
        result.map_err(text)
    }

    /// Off this thread, and without holding the state: it is costly.
    async fn prove(
        &self,
        connection: ConnectionId,
        proxy: Generation,
        server_first: Vec<u8>,
    ) -> Result<Reply, String> {
        let proving = {
            let mut state = self.shared.state();
            state.attested.belongs(connection, proxy).map_err(text)?;
            state.credentials.scram_take(connection).map_err(text)?
        };
        let proven = tokio::task::spawn_blocking(move || proving.prove(&server_first))
            .await
            .map_err(text)?
            .map_err(text)?;
        let mut state = self.shared.state();
        state.attested.belongs(connection, proxy).map_err(text)?;
        state.credentials.scram_proven(proven).map_err(text)
    }

    fn leaf(
        &self,
        connection: ConnectionId,
        proxy: Generation,
        target: &str,
    ) -> Result<Reply, String> {
        let (address, target, own) = {
            let mut state = self.shared.state();
            let bundle = state.bundle.clone();
            let found = state
                .attested
                .at_target(connection, proxy, target, &bundle, Purpose::Secret)
                .map_err(text)?;
            let key = state.credentials.key_of(&found.target.name);
            let key = key.map(ExposeSecret::expose_secret);
            let own = own_leaf(found.target, &bundle, key).map_err(text)?;
            let address = found.known.original.ip().to_canonical();
            (address, found.target.clone(), own)
        };
        match own {
            Some(leaf) => Ok(Reply::Leaf(leaf)),
            None => {
                let leaf = lock(&self.ca).leaf(&target, address);
                leaf.map(Reply::Leaf).map_err(text)
            }
        }
    }

    fn access(
        &self,
        connection: ConnectionId,
        proxy: Generation,
        target: &str,
        database: String,
    ) -> Result<Access, String> {
        let mut state = self.shared.state();
        let bundle = state.bundle.clone();
        let found = state
            .attested
            .at_target(connection, proxy, target, &bundle, Purpose::Catalogue)
            .map_err(text)?;
        let workload = found.known.workload.as_str();
        let (user, password) = state
            .credentials
            .find(workload, found.target)
            .map_err(text)?;
        Ok(Access {
            via: Via::Connection(connection),
            target: found.target.name.clone(),
            database,
            user,
            password,
            original: found.known.original,
            matched_name: found.name.map(str::to_owned),
            tls: found.target.tls.clone(),
            bundle: bundle.clone(),
        })
    }

    async fn catalogue(
        &self,
        access: Result<Access, String>,
        max_age: Duration,
    ) -> Result<(Reply, Option<OwnedFd>), String> {
        let (epoch, bytes) = self.catalogues.get(access?, max_age).await.map_err(text)?;
        let fd = to_memfd("catalogue", &bytes).map_err(text)?;
        Ok((Reply::Catalogue { epoch }, Some(fd)))
    }

    /// Numbers and names for operators, and no secret.
    pub(crate) fn status(&self) -> Value {
        let record = self.record.numbers();
        let ca = lock(&self.ca).fingerprint().map(str::to_owned);
        let catalogues = self.catalogues.status();
        let state = self.shared.state();
        json!({
            "epoch": state.bundle.epoch,
            "gate": self.gate.is_there(),
            "attested": state.attested.len(),
            "credentials": state.credentials.count(),
            "ca_sha256": ca,
            "catalogues": catalogues,
            "record": record,
        })
    }

    /// As the parent passes those of the others, with keeper's own.
    pub(crate) fn all_numbers(&self) -> Value {
        let mut numbers = match self.shared.state().others.clone() {
            Value::Object(others) => Value::Object(others),
            _ => json!({}),
        };
        numbers["keeper"] = self.status();
        numbers
    }
}

/// What goes to the proxy's log. No error of keeper's holds a secret.
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
