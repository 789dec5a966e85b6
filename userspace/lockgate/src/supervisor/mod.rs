//! `lockgate run`: a small parent that starts gate, proxy and keeper, hands
//! them their configuration and the channels between them, and starts them
//! again when they end. Its own end ends them.
//!
//! ```text
//! child    one of the three, as its parent sees it
//! switch   from one configuration to the next, in two phases
//! names    addresses of the targets' names
//! account  what it says of itself
//! host     what it finds or makes on the host
//! look     questions about servers, passed on to keeper
//! ```

mod account;
mod child;
mod host;
mod look;
mod names;
mod switch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use lockgate_config::{Bundle, Secrets};
use lockgate_ipc::{Order, Role, pair};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::checked::{self, Checked};
use crate::control::{self, Call, Request};
use crate::exit::Exit;
use crate::sandbox;
use child::{Backoff, Child, Ended};
use host::HostSetup;
use names::{Found, Names};

/// How long connections have to end by themselves.
const DRAIN: Duration = Duration::from_secs(10);

/// How often names are looked up again.
const NAMES: Duration = Duration::from_secs(30);

/// In the order of their start: who records, who serves, who redirects.
const ROLES: [Role; 3] = [Role::Keeper, Role::Proxy, Role::Gate];

/// Runs the agent until it is told to stop.
pub(crate) fn run(path: &Path) -> anyhow::Result<Exit> {
    sandbox::keep_memory_private()?;
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
    secrets: Arc<Secrets>,
    policies: usize,
    names: Names,
    looking_up: bool,
    children: HashMap<Role, Child>,
    backoff: HashMap<Role, Backoff>,
    restarts: HashMap<Role, u64>,
    events: mpsc::UnboundedSender<Event>,
}

/// What happens on the side.
enum Event {
    Ended(Ended),
    /// Time to start it again.
    Due(Role),
    Found(Vec<Found>),
}

impl Supervisor {
    fn new(path: &Path, checked: Checked, host: HostSetup) -> Self {
        let Checked { loaded, policies } = checked;
        Self {
            path: path.to_owned(),
            host,
            bundle: loaded.bundle,
            secrets: Arc::new(loaded.secrets),
            policies: policies.len(),
            names: Names::default(),
            looking_up: false,
            children: HashMap::new(),
            backoff: HashMap::new(),
            restarts: HashMap::new(),
            // Replaced when it runs.
            events: mpsc::unbounded_channel().0,
        }
    }

    async fn run(mut self) -> anyhow::Result<Exit> {
        let (events, mut inbox) = mpsc::unbounded_channel();
        self.events = events;
        self.remember_names();
        let (calls, mut requests) = mpsc::unbounded_channel::<Call>();
        let listener = control::listen(&self.host.agent.run_dir)?;
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
        self.host.publish_ca();
        self.say_what_is_protected();
        self.host.notify("READY=1");
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut names = tokio::time::interval(NAMES);
        names.reset();
        let release = loop {
            tokio::select! {
                Some(event) = inbox.recv() => self.handle(event).await,
                Some((request, answer)) = requests.recv() => {
                    let (result, stop) = match request {
                        Request::Look(look) => {
                            self.look(look, answer).await;
                            continue;
                        }
                        Request::Status => (self.status().await, None),
                        Request::Reload => (self.reload_from_file().await, None),
                        Request::Stop { release } => (json!({ "stopping": true }), Some(release)),
                    };
                    // Who asked may have gone.
                    let _ = answer.send(result.to_string());
                    if let Some(release) = stop {
                        break release;
                    }
                }
                _ = hangup.recv() => {
                    let result = self.reload_from_file().await;
                    tracing::info!(%result, "reload on SIGHUP");
                }
                _ = terminate.recv() => break false,
                _ = interrupt.recv() => break false,
                _ = second.tick() => {
                    self.host.notify("WATCHDOG=1");
                    self.pass_numbers().await;
                }
                _ = names.tick() => self.look_up_names(),
            }
        };
        self.stop(release, inbox).await;
        Ok(Exit::Yes)
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Ended(ended) => self.child_ended(&ended),
            Event::Due(role) => {
                if let Err(error) = self.start(role).await {
                    let error = format!("{error:#}");
                    tracing::error!(role = role.as_str(), error, "not started");
                    self.restart_later(role);
                }
            }
            Event::Found(found) => self.use_names(found).await,
        }
    }

    /// Starts `role`, configures it, and connects it to the others.
    async fn start(&mut self, role: Role) -> anyhow::Result<()> {
        let child = Child::spawn(role, &self.host, self.events.clone())?;
        child.expect_ready().await?;
        child
            .prepare(&self.bundle, &self.secrets)
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
        let Ended { role, pid, status } = ended;
        // Others are those that did not get as far as being one of the three.
        if self.children.get(role).map(Child::pid) != Some(*pid) {
            return;
        }
        tracing::error!(role = role.as_str(), pid, %status, "ended unexpectedly");
        if let Some(child) = self.children.remove(role) {
            let backoff = self.backoff.entry(*role).or_default();
            backoff.lived(child.age());
        }
        *self.restarts.entry(*role).or_default() += 1;
        self.restart_later(*role);
    }

    fn restart_later(&mut self, role: Role) {
        let wait = self.backoff.entry(role).or_default().next();
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // The agent may have ended meanwhile.
            let _ = events.send(Event::Due(role));
        });
    }

    /// Ends the three in an order in which each can finish what it has begun.
    /// Unless released, protected destinations stay refused: the programs are
    /// pinned.
    async fn stop(mut self, release: bool, mut inbox: mpsc::UnboundedReceiver<Event>) {
        tracing::info!(release, "stopping");
        self.host.notify("STOPPING=1");
        if let Some(gate) = self.children.get(&Role::Gate) {
            let order = match release {
                true => Order::Release,
                false => Order::Drain,
            };
            // One that is gone takes no clients either.
            let _ = gate.send(&order, None).await;
        }
        let short = Duration::from_secs(3);
        let mut order = vec![(Role::Proxy, DRAIN), (Role::Keeper, short)];
        if release {
            order.insert(0, (Role::Gate, short));
        }
        for (role, patience) in order {
            let Some(child) = self.children.get(&role) else {
                continue;
            };
            if role != Role::Gate {
                let _ = child.send(&Order::Drain, None).await;
            }
            let pid = child.pid();
            let gone = async {
                while let Some(event) = inbox.recv().await {
                    if matches!(event, Event::Ended(ended) if ended.pid == pid) {
                        return;
                    }
                }
            };
            if tokio::time::timeout(patience, gone).await.is_err() {
                tracing::warn!(role = role.as_str(), "did not end in time and is ended");
            }
            self.children.remove(&role);
        }
    }
}
