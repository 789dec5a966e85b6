use std::collections::BTreeSet;

use super::Check;
use crate::guarded::read_secret;
use crate::load::closest;
use crate::{Mode, Protocol, SecretSource, Target};

impl Check<'_> {
    pub(super) fn credentials(&mut self, target: &Target, at: &str, workloads: &BTreeSet<&str>) {
        if target.protocol == Protocol::Tcp {
            if !(target.credentials.is_empty() && target.tags.is_empty()) {
                let message = format!(
                    "target `{}` is opaque: credentials and tags mean nothing there",
                    target.name
                );
                let fix = "remove them, or set protocol = \"postgres\"";
                self.error(&["target", at, "protocol"], message, fix);
            }
            return;
        }
        if target.credentials.is_empty() {
            let message = format!("nobody can log in at target `{}`", target.name);
            let fix = "add [[target.credentials]] for each workload";
            self.warning(&["target", at, "name"], message, fix);
        }
        let mut seen = BTreeSet::new();
        for (index, credential) in target.credentials.iter().enumerate() {
            let index = index.to_string();
            let path = |key| ["target", at, "credentials", index.as_str(), key];
            let workload = credential.workload.as_str();
            if !workloads.contains(workload) && workload != "unknown" {
                let fix = match closest(workload, workloads.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "add a [[workload]] of this name".into(),
                };
                let message = format!("there is no workload `{workload}`");
                self.error(&path("workload"), message, &fix);
            }
            if !seen.insert(workload) {
                let message = format!(
                    "workload `{workload}` has two credentials at target `{}`",
                    target.name
                );
                self.error(&path("workload"), message, "keep one");
            }
            if credential.user.is_empty() || credential.user.contains('\0') {
                let message = format!("workload `{workload}` logs in as nobody");
                self.error(&path("user"), message, "name a role of the server");
            }
            let Some(SecretSource::File(file)) = &credential.password else {
                continue;
            };
            let place = ["target", at, "credentials", &index, "password", "file"];
            if !self.absolute(&place, file) {
                continue;
            }
            match read_secret(file) {
                Ok(secret) => {
                    let of_target = self.secrets.passwords.entry(target.name.clone());
                    of_target.or_default().insert(workload.to_owned(), secret);
                }
                Err(complaint) => self.complain(&place, complaint),
            }
        }
    }

    pub(super) fn tags(&mut self, target: &Target, at: &str) {
        for (index, tag) in target.tags.iter().enumerate() {
            let index = index.to_string();
            let path = |key| ["target", at, "tags", index.as_str(), key];
            let parts = tag.columns.split('.').count();
            if !(3..=4).contains(&parts) || tag.columns.split('.').any(str::is_empty) {
                let message = format!("`{}` names no column", tag.columns);
                let fix = "write schema.table.column or database.schema.table.column";
                self.error(&path("columns"), message, fix);
            }
            if tag.tag.is_empty() {
                let message = "a tag has no name".to_owned();
                self.error(&path("tag"), message, "write tag = \"pii\", for example");
            }
            let earlier = &target.tags[..index.parse().unwrap_or(0)];
            if earlier.contains(tag) {
                let message = format!("`{}` has this tag already", tag.columns);
                self.warning(&path("columns"), message, "remove one");
            }
        }
        if target.mode == Mode::Observe && !target.tags.is_empty() {
            let message = format!(
                "target `{}` is only observed: its tagged columns are seen by all",
                target.name
            );
            let fix = "set mode = \"enforce\" to protect them";
            self.warning(&["target", at, "mode"], message, fix);
        }
    }
}
