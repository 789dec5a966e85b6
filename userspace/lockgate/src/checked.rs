use std::path::Path;

use lockgate_config::{Finding, Loaded, Severity};
use lockgate_identity::Workloads;
use lockgate_policy::Policies;

/// A configuration that can be used: file, workloads and policies, checked
/// together.
pub(crate) struct Checked {
    pub(crate) loaded: Loaded,
    pub(crate) policies: Policies,
}

/// Loads and checks everything. Either way all findings come back, warnings
/// among them.
pub(crate) fn load(path: &Path, epoch: u64) -> Result<Checked, Vec<Finding>> {
    let mut loaded = lockgate_config::load(path, epoch, uid_of)?;
    let config = &loaded.bundle.config;
    let folder = &config.agent.policies;
    let mut findings = std::mem::take(&mut loaded.warnings);
    if let Err(errors) = Workloads::load(&config.workloads, &loaded.bundle.uids) {
        findings.extend(errors.iter().map(|error| Finding {
            severity: Severity::Error,
            file: path.display().to_string(),
            line: None,
            message: error.to_string(),
            fix: None,
        }));
    }
    let of_policy = |finding: lockgate_policy::Finding| Finding {
        severity: match finding.severity {
            lockgate_policy::Severity::Warning => Severity::Warning,
            lockgate_policy::Severity::Error => Severity::Error,
        },
        file: folder.join(&finding.file).display().to_string(),
        line: Some(finding.line),
        message: finding.message,
        fix: finding.suggestion,
    };
    let policies = match Policies::load(&loaded.bundle) {
        Ok(policies) => {
            findings.extend(policies.lint().into_iter().map(of_policy));
            Some(policies)
        }
        Err(errors) => {
            findings.extend(errors.into_iter().map(of_policy));
            None
        }
    };
    let refused = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    match policies {
        Some(policies) if !refused => {
            loaded.warnings = findings;
            Ok(Checked { loaded, policies })
        }
        _ => Err(findings),
    }
}

fn uid_of(name: &str) -> Option<u32> {
    nix::unistd::User::from_name(name)
        .ok()
        .flatten()
        .map(|user| user.uid.as_raw())
}
