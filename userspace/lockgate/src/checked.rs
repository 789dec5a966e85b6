use std::path::Path;

use lockgate_config::{Bundle, Finding, Loaded, Severity, Text, load_and};
use lockgate_identity::{WorkloadError, Workloads};
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
    let mut read = None;
    let loaded = load_and(path, epoch, uid_of, |bundle, text| {
        let mut findings = of_workloads(bundle, text);
        match Policies::load(bundle) {
            Ok(policies) => {
                let lint = policies.lint();
                findings.extend(
                    lint.into_iter()
                        .map(|finding| of_policy(&bundle.config.agent.policies, finding)),
                );
                read = Some(policies);
            }
            Err(errors) => {
                findings.extend(
                    errors
                        .into_iter()
                        .map(|finding| of_policy(&bundle.config.agent.policies, finding)),
                );
            }
        }
        findings
    })?;
    match read {
        Some(policies) => Ok(Checked { loaded, policies }),
        // Policies that do not load are errors among the findings.
        None => Err(loaded.warnings),
    }
}

fn of_workloads(bundle: &Bundle, text: &Text) -> Vec<Finding> {
    let workloads = &bundle.config.workloads;
    let Err(errors) = Workloads::load(workloads, &bundle.uids) else {
        return Vec::new();
    };
    let finding = |error: &WorkloadError| {
        // The last of a name, for those that are there twice.
        let (name, key) = place(error);
        let index = workloads.iter().rposition(|entry| entry.name == name);
        let index = index.unwrap_or(0).to_string();
        let path = ["workload", &index, key];
        // What is wrong and what to do are one sentence or two halves of one.
        let said = error.to_string();
        let (message, fix) = said.split_once("; ").unwrap_or((&said, ""));
        text.finding(Severity::Error, &path, message.to_owned(), fix)
    };
    // A user that is not there is found already, and the workload with it.
    let known = |error: &&WorkloadError| {
        let (name, key) = place(error);
        let entry = workloads.iter().find(|entry| entry.name == name);
        let unresolved =
            |user: &String| user.parse::<u32>().is_err() && !bundle.uids.contains_key(name);
        key == "user" && entry.is_some_and(|entry| entry.user.as_ref().is_some_and(unresolved))
    };
    errors
        .iter()
        .filter(|error| !known(error))
        .map(finding)
        .collect()
}

/// The workload an error is about, and the key.
fn place(error: &WorkloadError) -> (&str, &str) {
    match error {
        WorkloadError::Name(name)
        | WorkloadError::Duplicate(name)
        | WorkloadError::ExecutableOnly(name) => (name, "name"),
        WorkloadError::Reserved => ("unknown", "name"),
        WorkloadError::Field {
            workload, field, ..
        } => (workload, field),
        WorkloadError::Ambiguous { second, .. } => (second, "name"),
    }
}

/// A finding of the policies as one of the configuration; `folder` is theirs.
pub(crate) fn of_policy(folder: &Path, finding: lockgate_policy::Finding) -> Finding {
    Finding {
        severity: match finding.severity {
            lockgate_policy::Severity::Warning => Severity::Warning,
            lockgate_policy::Severity::Error => Severity::Error,
        },
        file: folder.join(&finding.file).display().to_string(),
        line: Some(finding.line),
        column: None,
        message: finding.message,
        fix: finding.suggestion,
    }
}

fn uid_of(name: &str) -> Option<u32> {
    nix::unistd::User::from_name(name)
        .ok()
        .flatten()
        .map(|user| user.uid.as_raw())
}
