//! What the redirect costs, apart from any protocol: connections to a server
//! that says one byte and ends, itself of the benchmark's process, which moves
//! between a cgroup with lockgate's programs and one without. Both kinds of
//! connections so take turns, and what else the machine does falls on both.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lockgate_tests::{Agent, AgentConfig, Cgroup, Workload};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

mod clients;
mod figures;
mod server;

pub use figures::Figures;

use clients::Visit;
use server::Server;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// How often the process moves, and what it does each time.
    pub rounds: u32,
    /// Connections at once.
    pub live: usize,
    /// How long connections are made at full speed.
    pub duration: Duration,
}

/// Connections to a destination that nothing protects, in a round.
const UNPROTECTED: usize = 500;
/// Connections to one that is protected.
const PROTECTED: usize = 200;
/// Who connects at full speed.
const CLIENTS: usize = 16;
/// Two for each connection, both here and in the proxy, and some.
const DESCRIPTORS: u64 = 65_536;
/// Of these, for everything else.
const OTHERS: u64 = 1_000;

/// A server behind lockgate, and where to be to meet lockgate or not.
struct Stand {
    server: Server,
    with: Workload,
    without: Workload,
    agent: Agent,
    _other: Cgroup,
}

/// Measures all of it.
pub fn measure(extent: &Extent) -> Result<Figures> {
    let at_once = descriptors()?.saturating_sub(OTHERS) / 2;
    let stand = Stand::build()?;
    let mut figures = Figures::default();
    // First, while no allocator has kept anything from earlier connections.
    stand.live(extent.live.min(at_once as usize), &mut figures)?;
    stand.unprotected(extent, &mut figures)?;
    stand.protected(extent, &mut figures)?;
    stand
        .full_speed(extent, &mut figures)
        .with_context(|| format!("lockgate's log:\n{}", stand.agent.log()))?;
    Ok(figures)
}

impl Stand {
    fn build() -> Result<Self> {
        let server = Server::start()?;
        let agent = Agent::start(&AgentConfig {
            body: format!(
                "[[target]]\nname = \"server\"\nprotocol = \"tcp\"\nmatch = [\"{}\"]\n\
                 [[workload]]\nname = \"app\"\nunit = \"app.service\"\n",
                server.address()
            ),
            policies: "@id(\"app-connects\") permit (principal == Workload::\"app\", \
                       action == Action::\"connect\", resource == Target::\"server\");"
                .into(),
            limits: "connections = 100000".into(),
            log: Some("info"),
            ..AgentConfig::default()
        })?;
        let other = Cgroup::new()?;
        Ok(Self {
            server,
            with: agent.cgroup.unit("app.service")?,
            without: other.unit("app.service")?,
            agent,
            _other: other,
        })
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Connections that are all open at once, and what memory they take.
    fn live(&self, count: usize, figures: &mut Figures) -> Result<()> {
        let joined = self.with.join()?;
        // What the first ones bring is not per connection.
        self.warm_up()?;
        let before = self.memory()?;
        self.server.hold();
        let held = clients::open(self.address(), count);
        figures.failed += held.failed;
        self.server.holds(held.open.len())?;
        let after = self.memory()?;
        figures.live = self.server.reaches(&held.open)?;
        let of = |kib: u64| kib as f64 / held.open.len() as f64;
        for ((role, before), (_, after)) in before.iter().zip(&after) {
            let kib = of(after.saturating_sub(*before));
            eprintln!("[bench] gate, memory per connection, {role}: {kib:.1} KiB");
            figures.memory_kib += kib;
        }
        drop(held);
        self.server.releases()?;
        drop(joined);
        eprintln!("[bench] gate, live connections: {}", figures.live);
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        self.server.hold();
        let held = clients::open(self.address(), 64);
        ensure!(held.failed == 0, "connections failed: {}", self.agent.log());
        self.server.holds(held.open.len())?;
        drop(held);
        self.server.releases()
    }

    /// connect(2) to what is not protected, with and without programs.
    fn unprotected(&self, extent: &Extent, figures: &mut Figures) -> Result<()> {
        let listener = server::silent()?;
        for _ in 0..extent.rounds {
            let measured = |workload: &Workload| {
                let _joined = workload.join()?;
                clients::connect_only(&listener, UNPROTECTED)
            };
            let without = measured(&self.without)?;
            let with = measured(&self.with)?;
            figures.unprotected.add(&without, &with);
        }
        eprintln!(
            "[bench] gate, unprotected connect(2): {}",
            figures.unprotected
        );
        Ok(())
    }

    /// The same destination, directly and through lockgate.
    fn protected(&self, extent: &Extent, figures: &mut Figures) -> Result<()> {
        for _ in 0..extent.rounds {
            let measured = |workload: &Workload| {
                let _joined = workload.join()?;
                let visits: Result<Vec<Visit>> = (0..PROTECTED)
                    .map(|_| clients::visit(self.address()))
                    .collect();
                visits
            };
            let without = measured(&self.without)?;
            let with = measured(&self.with)?;
            let of = |visits: &[Visit], of: fn(&Visit) -> Duration| -> Vec<Duration> {
                visits.iter().map(of).collect()
            };
            let connected: fn(&Visit) -> Duration = |visit| visit.connected;
            let answered: fn(&Visit) -> Duration = |visit| visit.answered;
            figures
                .connected
                .add(&of(&without, connected), &of(&with, connected));
            figures
                .answered
                .add(&of(&without, answered), &of(&with, answered));
        }
        eprintln!("[bench] gate, connect(2): {}", figures.connected);
        eprintln!("[bench] gate, to the first byte: {}", figures.answered);
        Ok(())
    }

    /// As many connections as there can be.
    fn full_speed(&self, extent: &Extent, figures: &mut Figures) -> Result<()> {
        let _joined = self.with.join()?;
        let pids: Vec<u32> = self.pids()?.into_iter().map(|(_, pid)| pid).collect();
        let used = super::measure::cpu(&pids)?;
        let many = clients::full_speed(self.address(), CLIENTS, extent.duration);
        let used = super::measure::quiet(&pids)? - used;
        figures.failed += many.failed;
        figures.per_second = many.made as f64 / many.took.as_secs_f64();
        figures.cpu_us = used.as_secs_f64() * 1e6 / many.made as f64;
        eprintln!(
            "[bench] gate, at full speed: {:.0}/s, {} failed, CPU {:.0} µs each",
            figures.per_second, many.failed, figures.cpu_us
        );
        if let Some(why) = many.why {
            eprintln!("[bench] gate, the first that failed: {why}");
        }
        Ok(())
    }

    fn pids(&self) -> Result<Vec<(&'static str, u32)>> {
        let pid = |role| Ok((role, self.agent.pid(role)?));
        ["gate", "proxy", "keeper"].into_iter().map(pid).collect()
    }

    /// What each of the three has of the machine's memory, in KiB; what they
    /// share is divided.
    fn memory(&self) -> Result<Vec<(&'static str, u64)>> {
        let of = |(role, pid): (&'static str, u32)| {
            let path = format!("/proc/{pid}/smaps_rollup");
            let rollup = fs::read_to_string(&path).context(path)?;
            let kib = rollup.lines().find_map(|line| {
                let kib = line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?;
                kib.parse().ok()
            });
            Ok((role, kib.context("no Pss")?))
        };
        self.pids()?.into_iter().map(of).collect()
    }
}

/// How many files may be open, raised as far as this machine lets root: in a
/// container often not at all, neither here nor in lockgate's processes.
fn descriptors() -> Result<u64> {
    if setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS).is_ok() {
        return Ok(DESCRIPTORS);
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    eprintln!("[bench] gate: no more than {hard} files may be open");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Waits until `done`, for half a minute.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    for _ in 0..3000 {
        if done() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("{what}: not within half a minute")
}
