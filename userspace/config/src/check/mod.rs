//! What is wrong with a configuration whose shape is right.

mod agent;
mod credentials;
mod masks;
mod targets;
mod tls;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::guarded::{Complaint, writable_by_others};
use crate::text::Text;
use crate::{Bundle, Config, Finding, PolicyFile, Secrets, Severity};

/// Collects findings, and what was read on the way.
pub(crate) struct Check<'a> {
    source: &'a Text,
    findings: Vec<Finding>,
    bundle: Bundle,
    secrets: Secrets,
}

impl<'a> Check<'a> {
    pub(crate) fn new(source: &'a Text, bundle: Bundle) -> Self {
        Self {
            source,
            findings: Vec::new(),
            bundle,
            secrets: Secrets::default(),
        }
    }

    pub(crate) fn done(self) -> (Bundle, Secrets, Vec<Finding>) {
        (self.bundle, self.secrets, self.findings)
    }

    pub(crate) fn everything(
        &mut self,
        path: &Path,
        config: &Config,
        uid_of: impl Fn(&str) -> Option<u32>,
    ) {
        if let Some(complaint) = writable_by_others(path) {
            self.complain(&[], complaint);
        }
        self.agent(&config.agent);
        self.kernel(&config.kernel);
        self.audit(&config.audit);
        self.limits(&config.limits);
        self.targets(config);
        self.masks(config);
        self.users_of_workloads(config, uid_of);
        self.policies(&config.agent.policies);
        self.look_up_names(config);
    }

    fn error(&mut self, path: &[&str], message: String, fix: &str) {
        let finding = self.source.finding(Severity::Error, path, message, fix);
        self.findings.push(finding);
    }

    fn warning(&mut self, path: &[&str], message: String, fix: &str) {
        let finding = self.source.finding(Severity::Warning, path, message, fix);
        self.findings.push(finding);
    }

    fn complain(&mut self, path: &[&str], Complaint { message, fix }: Complaint) {
        self.error(path, message, &fix);
    }

    /// A path that does not depend on where lockgate was started.
    fn absolute(&mut self, at: &[&str], path: &Path) -> bool {
        if path.is_absolute() {
            return true;
        }
        let message = format!("`{}` is not a full path", path.display());
        self.error(at, message, "begin it with /");
        false
    }

    fn users_of_workloads(&mut self, config: &Config, uid_of: impl Fn(&str) -> Option<u32>) {
        for (index, workload) in config.workloads.iter().enumerate() {
            let Some(user) = &workload.user else { continue };
            match user.parse().ok().or_else(|| uid_of(user)) {
                Some(uid) => {
                    self.bundle.uids.insert(workload.name.clone(), uid);
                }
                None => {
                    let at = index.to_string();
                    let message = format!("there is no user `{user}` on this host");
                    self.error(
                        &["workload", &at, "user"],
                        message,
                        "name one, or give its number",
                    );
                }
            }
        }
    }

    fn policies(&mut self, folder: &Path) {
        const AT: [&str; 2] = ["agent", "policies"];
        if !self.absolute(&AT, folder) {
            return;
        }
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(why) => {
                let message = format!(
                    "the policies folder {} cannot be read: {why}",
                    folder.display()
                );
                self.error(&AT, message, "`lockgate init` makes one");
                return;
            }
        };
        if let Some(complaint) = writable_by_others(folder) {
            self.complain(&AT, complaint);
        }
        let mut files = BTreeMap::new();
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|kind| kind != "cedar") {
                continue;
            }
            if let Some(complaint) = writable_by_others(&path) {
                self.complain(&AT, complaint);
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            match fs::read_to_string(&path) {
                Ok(text) => {
                    files.insert(name, text);
                }
                Err(why) => {
                    let message = format!("{} cannot be read: {why}", path.display());
                    self.error(&AT, message, "mend it, or give it another ending");
                }
            }
        }
        self.bundle.policies = files
            .into_iter()
            .map(|(name, text)| PolicyFile { name, text })
            .collect();
    }
}
