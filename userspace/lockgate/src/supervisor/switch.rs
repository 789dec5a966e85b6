use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use lockgate_config::{Bundle, Config, Finding, Host, Secrets, Severity};
use lockgate_ipc::Order;
use serde_json::{Value, json};

use super::names::{Found, look_up};
use super::{Event, ROLES, Supervisor};
use crate::checked::{self, Checked};

impl Supervisor {
    /// Takes the changed files into use, or says why not.
    pub(super) async fn reload_from_file(&mut self) -> Value {
        let refused = |epoch: u64, key: &str, why: Value| json!({ "reloaded": false, "epoch": epoch, key: why });
        let Checked { loaded, policies } = match checked::load(&self.path, self.bundle.epoch + 1) {
            Ok(checked) => checked,
            Err(findings) => {
                for finding in &findings {
                    tracing::error!(%finding, "the configuration is refused; the one before runs on");
                }
                return refused(self.bundle.epoch, "findings", json!(findings));
            }
        };
        let mut findings = loaded.warnings;
        findings.extend(self.needs_a_start(&loaded.bundle.config));
        for finding in &findings {
            tracing::warn!(%finding, "in the new configuration");
        }
        let mut bundle = loaded.bundle;
        // What lingers goes on being protected.
        let found = found_in(&bundle);
        bundle.names = self.names.merge(found, Instant::now());
        match self.switch(bundle, Arc::new(loaded.secrets)).await {
            Ok(()) => {
                self.policies = policies.len();
                json!({ "reloaded": true, "epoch": self.bundle.epoch, "findings": findings })
            }
            Err(error) => {
                tracing::error!(%error, "the configuration is refused; the one before runs on");
                refused(self.bundle.epoch, "error", json!(format!("{error:#}")))
            }
        }
    }

    /// What has changed in the file but is read at a start alone.
    fn needs_a_start(&self, new: &Config) -> Vec<Finding> {
        let metrics = new.metrics != self.bundle.config.metrics;
        let kernel = new.kernel != self.bundle.config.kernel;
        let mut agent = new.agent.clone();
        agent.policies.clone_from(&self.host.agent.policies);
        let changed = [
            (agent != self.host.agent, "[agent] apart from `policies`"),
            (kernel, "[kernel]"),
            (metrics, "[metrics]"),
        ];
        let changed = changed.into_iter().filter(|(changed, _)| *changed);
        let finding = |(_, what): (bool, &str)| Finding {
            severity: Severity::Warning,
            file: self.path.display().to_string(),
            line: None,
            column: None,
            message: format!("changes of {what} are not in use yet"),
            fix: Some("they take effect at the next start of `lockgate run`".into()),
        };
        changed.map(finding).collect()
    }

    /// Two phases: all three check it, then all three use it, or none does.
    pub(super) async fn switch(
        &mut self,
        bundle: Bundle,
        secrets: Arc<Secrets>,
    ) -> anyhow::Result<()> {
        if let Err(why) = self.prepare_all(&bundle, &secrets).await {
            for child in self.children.values() {
                // One that is gone has nothing to forget.
                let _ = child.send(&Order::Abort, None).await;
            }
            return Err(why);
        }
        // From here on it counts: who cannot follow is started again with it.
        self.bundle = bundle;
        self.secrets = secrets;
        for role in ROLES {
            let Some(child) = self.children.get(&role) else {
                continue;
            };
            if let Err(error) = child.commit().await {
                let error = format!("{error:#}");
                tracing::error!(role = role.as_str(), error, "cannot follow, and is ended");
                child.kill();
            }
        }
        self.host.publish_ca();
        Ok(())
    }

    async fn prepare_all(&self, bundle: &Bundle, secrets: &Secrets) -> anyhow::Result<()> {
        for role in ROLES {
            let who = role.as_str();
            let Some(child) = self.children.get(&role) else {
                bail!("{who} is being started; try again in a moment");
            };
            if let Err(why) = child.prepare(bundle, secrets).await? {
                bail!("{who} refuses it: {why}");
            }
        }
        Ok(())
    }

    /// Begins to look the targets' names up, on the side: a resolver may take
    /// its time.
    pub(super) fn look_up_names(&mut self) {
        let wanted = names_of(&self.bundle.config);
        if wanted.is_empty() || self.looking_up {
            return;
        }
        self.looking_up = true;
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || {
            // The agent may have ended meanwhile.
            let _ = events.send(Event::Found(look_up(wanted)));
        });
    }

    /// Uses what was found, if it is news.
    pub(super) async fn use_names(&mut self, found: Vec<Found>) {
        self.looking_up = false;
        // A reload may have changed what is wanted since.
        let wanted = names_of(&self.bundle.config);
        let found: Vec<Found> = found
            .into_iter()
            .filter(|found| wanted.contains(&found.name))
            .collect();
        if found.len() != wanted.len() {
            return;
        }
        let names = self.names.merge(found, Instant::now());
        if names == self.bundle.names {
            return;
        }
        let mut bundle = self.bundle.clone();
        bundle.names = names;
        bundle.epoch += 1;
        let epoch = bundle.epoch;
        match self.switch(bundle, self.secrets.clone()).await {
            Ok(()) => tracing::info!(epoch, "addresses of targets have changed"),
            Err(error) => tracing::error!(%error, "changed addresses are not in use"),
        }
    }

    /// What the first configuration found.
    pub(super) fn remember_names(&mut self) {
        self.names.merge(found_in(&self.bundle), Instant::now());
    }
}

fn names_of(config: &Config) -> Vec<String> {
    let places = config.targets.iter().flat_map(|target| &target.places);
    let names = places.filter_map(|place| match &place.host {
        Host::Name(name) => Some(name.clone()),
        Host::Net(_) | Host::Any => None,
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

fn found_in(bundle: &Bundle) -> Vec<Found> {
    let names = names_of(&bundle.config).into_iter();
    let found = names.map(|name| Found {
        addresses: bundle.names.get(&name).cloned(),
        name,
    });
    found.collect()
}
