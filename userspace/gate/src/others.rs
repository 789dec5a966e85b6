//! Programs of others on the hooks that lockgate uses.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::sys;

/// `bpf_attach_type` of include/uapi/linux/bpf.h.
const EGRESS: u32 = 1;
const CONNECT: [u32; 2] = [10, 11];

/// How many cgroups are looked at.
const MOST_CGROUPS: usize = 8192;

/// Before the names of lockgate's programs, of which the kernel keeps fifteen
/// letters.
const OWN: &str = "lockgate_";

/// Names of the programs on connect(2) that are attached to `cgroup` and run
/// after lockgate's. Programs of cgroups below run before.
///
/// # Errors
/// Without the right to ask.
pub fn behind(cgroup: &Path) -> std::io::Result<Vec<String>> {
    let folder = File::open(cgroup)?;
    let names = names();
    let mut found = Vec::new();
    for hook in CONNECT {
        let attached = sys::attached_to(&folder, hook)?;
        let attached: Vec<String> = attached.iter().map(|id| named(&names, *id)).collect();
        let after = match attached.iter().rposition(|name| name.starts_with(OWN)) {
            Some(own) => &attached[own + 1..],
            // Not running; it will come last.
            None => &[],
        };
        found.extend(after.iter().cloned());
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Cgroups at or below `root` with somebody else's filter of what leaves.
///
/// # Errors
/// Without the right to ask.
pub fn filtering(root: &Path) -> std::io::Result<Vec<String>> {
    sys::attached_to(File::open(root)?, EGRESS)?;
    let names = names();
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    let mut looked_at = 0;
    while let Some(cgroup) = waiting.pop()
        && looked_at < MOST_CGROUPS
    {
        looked_at += 1;
        let attached = File::open(&cgroup).and_then(|folder| sys::attached_to(folder, EGRESS));
        // One that may be asked and is not there any more has none.
        let others = attached.unwrap_or_default();
        if others.iter().any(|id| !named(&names, *id).starts_with(OWN)) {
            let below = cgroup.strip_prefix(root).unwrap_or(&cgroup);
            found.push(format!("/{}", below.display()));
        }
        waiting.extend(children(&cgroup));
    }
    found.sort();
    Ok(found)
}

fn children(cgroup: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

/// Of all programs that are loaded, by id.
fn names() -> HashMap<u32, String> {
    let loaded = aya::programs::loaded_programs().flatten();
    loaded
        .map(|program| {
            let name = program.name_as_str().unwrap_or_default().to_owned();
            (program.id(), name)
        })
        .collect()
}

fn named(names: &HashMap<u32, String>, id: u32) -> String {
    match names.get(&id).filter(|name| !name.is_empty()) {
        Some(name) => name.clone(),
        None => format!("program {id}"),
    }
}
