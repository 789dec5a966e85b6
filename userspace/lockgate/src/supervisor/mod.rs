//! `lockgate run`: a small parent that starts gate, proxy and keeper, hands
//! them their configuration and the channels between them, and starts them
//! again when they end. Its own end ends them.

mod child;
mod host;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use lockgate_config::{Bundle, Finding, Host, Secrets};
use lockgate_ipc::{Order, Role, pair, to_memfd};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::checked::{self, Checked};
use crate::control::{self, Call, Request};
use crate::exit::Exit;
use child::{Backoff, Child, Ended};
use host::HostSetup;

/// How long connections have to end by themselves.
const DRAIN: Duration = Duration::from_secs(10);

/// How often names are looked up again.
const NAMES: Duration = Duration::from_secs(30);

/// In the order of their start: who records, who serves, who redirects.
const ROLES: [Role; 3] = [Role::Keeper, Role::Proxy, Role::Gate];

/// Runs the agent until it is told to stop.
pub(crate) fn run(path: &Path) -> anyhow::Result<Exit> {
    let checked = match checked::load(path, 1) {
        Ok(checked) => checked,
        Err(findings) => {
            crate::commands::print_findings(&findings);
            return Ok(Exit::Usage);
        }
    };
    crate::commands::print_findings(&checked.loaded.warnings);
    crate::log::start(checked.loaded.bundle.config.agent.log);
    let host = HostSetup::prepare(&checked.loaded.bundle.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(Supervisor::new(path, checked, host).run())
}

struct Supervisor {
    path: PathBuf,
    host: HostSetup,
    bundle: Bundle,
    secrets: Secrets,
    policies: usize,
    children: HashMap<Role, Child>,
    backoff: HashMap<Role, Backoff>,
    ended: mpsc::UnboundedSender<Ended>,
    inbox: mpsc::UnboundedReceiver<Ended>,
    restarts: mpsc::UnboundedSender<Role>,
    due: mpsc::UnboundedReceiver<Role>,
    stopping: bool,
}

impl Supervisor {
    fn new(path: &Path, checked: Checked, host: HostSetup) -> Self {
        let (ended, inbox) = mpsc::unbounded_channel();
        let (restarts, due) = mpsc::unbounded_channel();
        let Checked { loaded, policies } = checked;
        Self {
            path: path.to_owned(),
            host,
            bundle: loaded.bundle,
            secrets: loaded.secrets,
            policies: policies.len(),
            children: HashMap::new(),
            backoff: HashMap::new(),
            ended,
            inbox,
            restarts,
            due,
            stopping: false,
        }
    }

    async fn run(mut self) -> anyhow::Result<Exit> {
        let (calls, mut requests) = mpsc::unbounded_channel::<Call>();
        let listener = control::listen(&self.bundle.config.agent.run_dir)?;
        tokio::spawn(control::serve(listener, calls));
        let mut hangup = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        for role in ROLES {
            // At the very start there is nothing to go back to.
            self.start(role)
                .await
                .with_context(|| format!("starting {}", role.as_str()))?;
        }
        self.publish_ca();
        self.say_what_is_protected();
        self.host.notify_ready();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let mut names = tokio::time::interval(NAMES);
        names.reset();
        loop {
            tokio::select! {
                Some(ended) = self.inbox.recv() => self.child_ended(&ended),
                Some(role) = self.due.recv() => {
                    if let Err(error) = self.start(role).await {
                        tracing::error!(role = role.as_str(), error = format!("{error:#}"), "not started");
                        self.children.remove(&role);
                        self.restart_later(role);
                    }
                }
                Some((request, answer)) = requests.recv() => {
                    let stop = match &request {
                        Request::Stop { release } => Some(*release),
                        _ => None,
                    };
                    let result = match request {
                        Request::Status => self.status().await,
                        Request::Reload => self.reload_from_file().await,
                        Request::Stop { .. } => json!({ "stopping": true }),
                    };
                    // Who asked may have gone.
                    let _ = answer.send(result);
                    if let Some(release) = stop {
                        return self.stop(release).await;
                    }
                }
                _ = hangup.recv() => {
                    let result = self.reload_from_file().await;
                    tracing::info!(%result, "reload on SIGHUP");
                }
                _ = terminate.recv() => return self.stop(false).await,
                _ = interrupt.recv() => return self.stop(false).await,
                _ = second.tick() => self.pass_numbers().await,
                _ = names.tick() => self.look_up_names().await,
            }
        }
    }

    /// Starts `role`, configures it, and connects it to the others.
    async fn start(&mut self, role: Role) -> anyhow::Result<()> {
        let child = Child::spawn(role, &self.host, &self.bundle.config, self.ended.clone())?;
        child.expect_ready().await?;
        if role == Role::Keeper {
            child
                .send(&Order::Secrets, Some(self.secrets_fd(&self.secrets)?))
                .await?;
        }
        child
            .prepare(&self.bundle)
            .await?
            .map_err(anyhow::Error::msg)?;
        child.commit().await?;
        for other in ROLES {
            let Some(peer) = self.children.get(&other).filter(|_| other != role) else {
                continue;
            };
            let (near, far) = pair()?;
            child.send(&Order::Peer(other), Some(near)).await?;
            // One that has ended is started, and connected, anew.
            let _ = peer.send(&Order::Peer(role), Some(far)).await;
        }
        tracing::info!(role = role.as_str(), pid = child.pid(), "started");
        self.children.insert(role, child);
        Ok(())
    }

    fn child_ended(&mut self, ended: &Ended) {
        let current = self
            .children
            .get(&ended.role)
            .is_some_and(|child| child.pid() == ended.pid);
        if current && !self.stopping {
            tracing::error!(role = ended.role.as_str(), pid = ended.pid, status = %ended.status, "ended unexpectedly");
            if let Some(child) = self.children.remove(&ended.role) {
                self.backoff
                    .entry(ended.role)
                    .or_default()
                    .lived(child.age());
            }
            self.restart_later(ended.role);
        }
    }

    fn restart_later(&mut self, role: Role) {
        let wait = self.backoff.entry(role).or_default().next();
        let restarts = self.restarts.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // The agent may have ended meanwhile.
            let _ = restarts.send(role);
        });
    }

    async fn reload_from_file(&mut self) -> Value {
        match checked::load(&self.path, self.bundle.epoch + 1) {
            Ok(Checked { loaded, policies }) => {
                let warnings: Vec<Finding> = loaded.warnings;
                match self.switch(loaded.bundle, loaded.secrets).await {
                    Ok(()) => {
                        self.policies = policies.len();
                        json!({ "reloaded": true, "epoch": self.bundle.epoch, "findings": warnings })
                    }
                    Err(error) => {
                        json!({ "reloaded": false, "epoch": self.bundle.epoch, "error": format!("{error:#}") })
                    }
                }
            }
            Err(findings) => {
                for finding in &findings {
                    tracing::error!(%finding, "the configuration is refused; the one before runs on");
                }
                json!({ "reloaded": false, "epoch": self.bundle.epoch, "findings": findings })
            }
        }
    }

    /// Two phases: all three check it, then all three use it, or none does.
    async fn switch(&mut self, bundle: Bundle, secrets: Secrets) -> anyhow::Result<()> {
        let mut refused = None;
        for role in ROLES {
            let Some(child) = self.children.get(&role) else {
                bail!("{} is being started; try again in a moment", role.as_str());
            };
            if role == Role::Keeper {
                child
                    .send(&Order::Secrets, Some(self.secrets_fd(&secrets)?))
                    .await?;
            }
            if let Err(why) = child.prepare(&bundle).await? {
                refused = Some(format!("{} refuses it: {why}", role.as_str()));
                break;
            }
        }
        for role in ROLES {
            let Some(child) = self.children.get(&role) else {
                continue;
            };
            match refused {
                Some(_) => child.send(&Order::Abort, None).await?,
                None => child.commit().await?,
            }
        }
        match refused {
            Some(why) => bail!(why),
            None => {
                self.bundle = bundle;
                self.secrets = secrets;
                self.publish_ca();
                Ok(())
            }
        }
    }

    async fn look_up_names(&mut self) {
        let wanted: Vec<String> = self
            .bundle
            .config
            .targets
            .iter()
            .flat_map(|target| &target.places)
            .filter_map(|place| match &place.host {
                Host::Name(name) => Some(name.clone()),
                Host::Net(_) | Host::Any => None,
            })
            .collect();
        if wanted.is_empty() {
            return;
        }
        let found = tokio::task::spawn_blocking(move || {
            let resolved = wanted.into_iter().map(|name| {
                let addresses = lockgate_config::resolve(&name);
                (name, addresses)
            });
            resolved.collect::<Vec<_>>()
        });
        let Ok(found) = found.await else { return };
        let mut bundle = self.bundle.clone();
        for (name, addresses) in found {
            match addresses {
                Ok(addresses) => {
                    bundle.names.insert(name, addresses);
                }
                // What was known goes on being protected.
                Err(error) => tracing::warn!(%name, %error, "no address now; the ones before stay"),
            }
        }
        if bundle.names == self.bundle.names {
            return;
        }
        bundle.epoch += 1;
        let secrets = std::mem::take(&mut self.secrets);
        match self.switch(bundle, secrets).await {
            Ok(()) => tracing::info!(
                epoch = self.bundle.epoch,
                "addresses of targets have changed"
            ),
            Err(error) => {
                tracing::error!(%error, "changed addresses are not in use");
                // keeper has the secrets; the file has them for the next start.
                if let Ok(checked) = checked::load(&self.path, self.bundle.epoch) {
                    self.secrets = checked.loaded.secrets;
                }
            }
        }
    }

    /// Numbers of gate and proxy, for keeper's metrics endpoint.
    async fn pass_numbers(&mut self) {
        if self.bundle.config.metrics.listen.is_none() {
            return;
        }
        let mut numbers = json!({});
        for role in [Role::Gate, Role::Proxy] {
            if let Some(child) = self.children.get(&role)
                && let Ok(status) = child.status().await
            {
                numbers[role.as_str()] = status;
            }
        }
        if let Some(keeper) = self.children.get(&Role::Keeper) {
            // The next second brings others.
            let _ = keeper
                .send(&Order::Numbers(numbers.to_string()), None)
                .await;
        }
    }

    async fn status(&mut self) -> Value {
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "epoch": self.bundle.epoch,
            "policies": self.policies,
            "targets": self.bundle.config.targets.iter().map(|target| json!({
                "name": target.name,
                "protocol": target.protocol,
                "mode": target.mode,
                "match": target.places,
            })).collect::<Vec<_>>(),
        });
        for role in ROLES {
            status[role.as_str()] = match self.children.get(&role) {
                Some(child) => {
                    let mut of_child = child.status().await.unwrap_or_else(|_| json!({}));
                    of_child["pid"] = child.pid().into();
                    of_child["up_s"] = child.age().as_secs().into();
                    of_child
                }
                None => Value::Null,
            };
        }
        status
    }

    async fn stop(mut self, release: bool) -> anyhow::Result<Exit> {
        self.stopping = true;
        tracing::info!(release, "stopping");
        if let Some(gate) = self.children.get(&Role::Gate) {
            let order = if release {
                Order::Release
            } else {
                Order::Drain
            };
            let _ = gate.send(&order, None).await;
        }
        for (role, patience) in [(Role::Proxy, DRAIN), (Role::Keeper, Duration::from_secs(3))] {
            let Some(child) = self.children.get(&role) else {
                continue;
            };
            let pid = child.pid();
            let _ = child.send(&Order::Drain, None).await;
            let gone = async {
                while let Some(ended) = self.inbox.recv().await {
                    if ended.pid == pid {
                        return;
                    }
                }
            };
            if tokio::time::timeout(patience, gone).await.is_err() {
                tracing::warn!(role = role.as_str(), "did not end in time and is ended");
            }
        }
        for child in self.children.values() {
            child.kill();
        }
        // Protected destinations stay refused: the programs are pinned.
        Ok(Exit::Yes)
    }

    fn secrets_fd(&self, secrets: &Secrets) -> anyhow::Result<std::os::fd::OwnedFd> {
        Ok(to_memfd("secrets", &serde_json::to_vec(secrets)?)?)
    }

    /// The CA's certificate is public; keeper's folder is not.
    fn publish_ca(&self) {
        let agent = &self.bundle.config.agent;
        let from = agent.state_dir.join("ca/host-ca.pem");
        let to = agent.run_dir.join("host-ca.pem");
        let published = std::fs::read(&from).and_then(|pem| {
            std::fs::write(&to, pem)?;
            std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        });
        if let Err(error) = published {
            tracing::warn!(%error, "the host CA's certificate is not published");
        }
    }

    fn say_what_is_protected(&self) {
        let config = &self.bundle.config;
        eprintln!("lockgate {} protects this host:", env!("CARGO_PKG_VERSION"));
        for target in &config.targets {
            let places: Vec<String> = target.places.iter().map(ToString::to_string).collect();
            let mode = match target.mode {
                lockgate_config::Mode::Observe => "observed only, nothing is refused",
                lockgate_config::Mode::Enforce => "enforced",
            };
            eprintln!("  {:<16} {} ({mode})", target.name, places.join(", "));
        }
        eprintln!(
            "  {} workloads, {} policies; everything else is `unknown`",
            config.workloads.len(),
            self.policies
        );
        let served = config.kernel.namespaces.len();
        eprintln!(
            "  network namespaces served: the host's{}; clients of others are refused",
            if served == 0 {
                String::new()
            } else {
                format!(" and {served} more")
            }
        );
    }
}
