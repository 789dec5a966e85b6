use lockgate_command::{Access, Denial, PolicyRef, TargetName, Verdict, WorkloadName};
use lockgate_config::Bundle;

use crate::Finding;

/// One accepted set of policies, together with the workloads and targets of
/// the configuration it was accepted with.
#[derive(Debug)]
pub struct Policies {
    epoch: u64,
}

/// What the policies say of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether all of its accesses are permitted.
    pub verdict: Verdict,
    /// The policies that decided: those that permit, when it is allowed; those
    /// that forbid, when it is denied; none when nothing permits an access.
    pub policies: Vec<PolicyRef>,
}

impl Policies {
    /// Reads and checks the policies of a bundle.
    ///
    /// # Errors
    /// All errors found; then nothing of the set can be used.
    pub fn load(bundle: &Bundle) -> Result<Self, Vec<Finding>> {
        Ok(Self {
            epoch: bundle.epoch,
        })
    }

    /// Decides. Every access must be permitted; a command without any is denied.
    pub fn decide(
        &self,
        workload: &WorkloadName,
        target: &TargetName,
        accesses: &[Access],
    ) -> Decision {
        let message = format!("no policy permits {workload} anything on {target}");
        let denial = Denial {
            message,
            hint: String::new(),
            policies: Vec::new(),
            access: accesses.first().cloned(),
        };
        Decision {
            verdict: Verdict::Deny(denial.into()),
            policies: Vec::new(),
        }
    }

    /// [`Bundle::epoch`] of the bundle it was loaded from.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is valid and still looks wrong.
    pub fn lint(&self) -> Vec<Finding> {
        Vec::new()
    }
}
