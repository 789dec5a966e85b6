use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use anyhow::{Context, Result};

use crate::sh;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace with a cable to the host's: a server of its own, as far
/// as the network can tell.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    host_link: String,
    /// Address of the namespace, as seen from the host.
    pub address: String,
    /// The same in IPv6.
    pub address6: String,
}

impl Namespace {
    /// Makes one with addresses that nothing else here uses.
    pub fn new() -> Result<Self> {
        // A pid is unique while it lives; so is a number within it.
        let unique = (std::process::id() << 6) + (NEXT.fetch_add(1, SeqCst) & 0x3f);
        let (a, b) = ((unique >> 7) & 0xff, (unique & 0x7f) << 1);
        let name = format!("lg{unique:x}");
        let host_link = format!("lgh{unique:x}");
        let inner = format!("lgn{unique:x}");
        let namespace = Self {
            address: format!("10.{}.{a}.{}", 64 + ((unique >> 15) & 0x3f), b + 1),
            address6: format!("fd00:6c67:{:x}::2", unique & 0xffff),
            name,
            host_link,
        };
        let Self {
            name,
            host_link,
            address,
            address6,
        } = &namespace;
        let host = format!("10.{}.{a}.{b}", 64 + ((unique >> 15) & 0x3f));
        let host6 = format!("fd00:6c67:{:x}::1", unique & 0xffff);
        sh(&format!(
            "ip netns add {name}
             ip -n {name} link set lo up
             ip link add {host_link} type veth peer name {inner} netns {name}
             ip addr add {host}/31 dev {host_link}
             ip -6 addr add {host6}/64 dev {host_link} nodad
             ip link set {host_link} up
             ip -n {name} addr add {address}/31 dev {inner}
             ip -n {name} -6 addr add {address6}/64 dev {inner} nodad
             ip -n {name} link set {inner} up"
        ))
        .context("a network namespace cannot be made")?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's end of its cable.
    pub fn host_link(&self) -> &str {
        &self.host_link
    }

    /// Its file, for the agent's `kernel.namespaces`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let Self {
            name, host_link, ..
        } = self;
        // Already gone is gone.
        let _ = sh(&format!(
            "ip link del {host_link} 2>/dev/null; ip netns del {name} 2>/dev/null"
        ));
    }
}
