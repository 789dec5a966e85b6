use lockgate_config::Mode;
use lockgate_ipc::{Order, Role};
use serde_json::{Value, json};

use super::{ROLES, Supervisor};
use crate::commands::counted;

impl Supervisor {
    /// For `lockgate status`.
    pub(super) async fn status(&mut self) -> Value {
        let targets = self.bundle.config.targets.iter().map(|target| {
            json!({
                "name": target.name,
                "protocol": target.protocol,
                "mode": target.mode,
                "match": target.places,
            })
        });
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "epoch": self.bundle.epoch,
            "policies": self.policies,
            "targets": targets.collect::<Vec<_>>(),
        });
        for role in ROLES {
            status[role.as_str()] = match self.children.get(&role) {
                None => Value::Null,
                Some(child) => {
                    let answer = child.status().await;
                    let answers = answer.is_ok();
                    let mut of_child = answer.unwrap_or_else(|_| json!({}));
                    of_child["pid"] = child.pid().into();
                    of_child["up_s"] = child.age().as_secs().into();
                    of_child["restarts"] = self.restarts.get(&role).copied().unwrap_or(0).into();
                    of_child["answers"] = answers.into();
                    of_child
                }
            };
        }
        status
    }

    /// Numbers of gate and proxy, for keeper's metrics endpoint.
    pub(super) async fn pass_numbers(&mut self) {
        if self.bundle.config.metrics.listen.is_none() {
            return;
        }
        let mut numbers = json!({});
        for role in [Role::Gate, Role::Proxy] {
            if let Some(child) = self.children.get(&role)
                && let Ok(mut status) = child.status().await
            {
                // How many is a number; who they are is for `lockgate status`.
                if let Some(sessions) = status["sessions"].as_array().map(Vec::len) {
                    status["sessions"] = sessions.into();
                }
                numbers[role.as_str()] = status;
            }
        }
        if let Some(keeper) = self.children.get(&Role::Keeper) {
            // The next second brings others.
            let _ = keeper
                .send(&Order::Numbers(numbers.to_string()), None)
                .await;
        }
    }

    /// What a person who starts it wants to know.
    pub(super) fn say_what_is_protected(&self) {
        let config = &self.bundle.config;
        eprintln!("lockgate {} protects this host:", env!("CARGO_PKG_VERSION"));
        let width = config.targets.iter().map(|target| target.name.len()).max();
        let width = width.unwrap_or(0).max(12);
        for target in &config.targets {
            let places: Vec<String> = target.places.iter().map(ToString::to_string).collect();
            let mode = match target.mode {
                Mode::Observe => "observed only, nothing is refused",
                Mode::Enforce => "enforced",
            };
            eprintln!("  {:<width$}  {} ({mode})", target.name, places.join(", "));
        }
        eprintln!(
            "  {}, {}; everything else is `unknown`",
            counted(config.workloads.len(), "workload"),
            counted(self.policies, "policy")
        );
        eprintln!("  network namespaces: the host's, and each other from its first process on");
    }
}
