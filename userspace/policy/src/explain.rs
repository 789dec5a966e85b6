use std::sync::Arc;

use lockgate_command::{Access, PolicyRef, TargetName, Verb, WorkloadName};
use serde::Serialize;

use crate::Policies;
use crate::decision::allow_command;
use crate::read::Placed;
use crate::set::Asked;

/// Why one access is permitted or not, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Explanation {
    /// These permit it, and none forbids it.
    Permitted {
        /// Which.
        policies: Vec<Deciding>,
    },
    /// These forbid it, whatever permits it.
    Forbidden {
        /// Which.
        policies: Vec<Deciding>,
    },
    /// None permits it.
    Unpermitted {
        /// What would, where that can be written down.
        command: Option<String>,
    },
    /// It cannot be decided, which denies.
    Failed {
        /// What went wrong.
        reason: String,
    },
}

/// A policy that decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deciding {
    /// Its id and place.
    #[serde(flatten)]
    pub policy: PolicyRef,
    /// Its `@reason`.
    pub reason: Option<Arc<str>>,
}

impl Explanation {
    /// Whether the access is permitted.
    pub fn is_permitted(&self) -> bool {
        matches!(self, Self::Permitted { .. })
    }
}

impl Policies {
    /// Why `access` is permitted or not. Says the same as [`Policies::decide`],
    /// in full and without its cache.
    pub fn explain(
        &self,
        workload: &WorkloadName,
        target: &TargetName,
        access: &Access,
    ) -> Explanation {
        let Some(slice) = self.slice(workload, target) else {
            let reason = format!("there is no workload `{workload}` or no target `{target}`");
            return Explanation::Failed { reason };
        };
        let asked = match self.ask(slice, access) {
            // Who may view may filter.
            Asked::Unpermitted if access.verb == Verb::Filter => {
                let view = Access::new(Verb::View, access.resource.clone());
                match self.ask(slice, &view) {
                    viewed @ Asked::Permitted(_) => viewed,
                    _ => Asked::Unpermitted,
                }
            }
            asked => asked,
        };
        match asked {
            Asked::Permitted(by) => Explanation::Permitted {
                policies: deciding(&by),
            },
            Asked::Forbidden(by) => Explanation::Forbidden {
                policies: deciding(&by),
            },
            Asked::Unpermitted => Explanation::Unpermitted {
                command: allow_command(slice, access),
            },
            Asked::Failed { why, .. } => Explanation::Failed { reason: why },
        }
    }
}

fn deciding(placed: &[&Placed]) -> Vec<Deciding> {
    let mut all: Vec<Deciding> = placed
        .iter()
        .map(|placed| Deciding {
            policy: placed.reference.clone(),
            reason: placed.reason.clone(),
        })
        .collect();
    all.sort_by(|a, b| a.policy.cmp(&b.policy));
    all
}
