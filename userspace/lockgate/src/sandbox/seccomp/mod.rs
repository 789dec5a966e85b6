mod gate;
mod rule;
mod unprivileged;

use std::collections::BTreeMap;

use anyhow::Context;
use lockgate_ipc::Role;
use rule::When;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Filters the system calls of this process from now on. What is not allowed
/// fails with EPERM.
pub(super) fn apply(role: Role) -> anyhow::Result<()> {
    let own = std::process::id();
    // Of two filters that deny, the later one's error is seen; here only this
    // one denies clone3. Threads come by clone then, whose flags can be seen.
    let clone3 = [(libc::SYS_clone3, vec![When::Always])];
    let no_clone3 = rules(clone3)?;
    install(no_clone3, SeccompAction::Allow, errno(libc::ENOSYS))?;
    match role {
        Role::Gate => install(
            rules(gate::denied(own))?,
            SeccompAction::Allow,
            errno(libc::EPERM),
        ),
        Role::Proxy => allow_only(unprivileged::all_day(own)),
        Role::Keeper => {
            let mut allowed = unprivileged::all_day(own);
            let keeper = unprivileged::KEEPER.iter();
            allowed.extend(keeper.map(|call| (*call, When::Always)));
            allow_only(allowed)
        }
    }
}

fn allow_only(allowed: Vec<(i64, When)>) -> anyhow::Result<()> {
    let allowed = rules(allowed.into_iter().map(|(call, when)| (call, vec![when])))?;
    install(allowed, errno(libc::EPERM), SeccompAction::Allow)
}

/// A call is meant if one of its conditions holds.
fn rules(list: impl IntoIterator<Item = (i64, Vec<When>)>) -> anyhow::Result<Rules> {
    let mut rules = Rules::new();
    for (call, conditions) in list {
        let mut alternatives = Vec::new();
        for condition in conditions {
            alternatives.extend(condition.rules()?);
        }
        rules.insert(call, alternatives);
    }
    Ok(rules)
}

fn install(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) -> anyhow::Result<()> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).context("this architecture")?;
    let filter = SeccompFilter::new(rules, otherwise, listed, arch)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number as u32)
}
