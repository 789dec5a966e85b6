use lockgate_command::{Resource, TargetName, WorkloadName};

/// The policies that a new installation begins with, as file name and text.
/// They speak of the workload `nightly-report` and the target `orders-db`.
pub const STARTER: &[(&str, &str)] = &[
    (
        "guardrails.cedar",
        include_str!("../../../policies/starter/guardrails.cedar"),
    ),
    (
        "workloads.cedar",
        include_str!("../../../policies/starter/workloads.cedar"),
    ),
];

/// The ready-made sets of policies in `policies/packs`.
pub const PACKS: &[Pack] = &[
    Pack {
        name: "read-only",
        text: include_str!("../../../policies/packs/read-only.cedar"),
    },
    Pack {
        name: "analyst",
        text: include_str!("../../../policies/packs/analyst.cedar"),
    },
    Pack {
        name: "application",
        text: include_str!("../../../policies/packs/application.cedar"),
    },
    Pack {
        name: "migration",
        text: include_str!("../../../policies/packs/migration.cedar"),
    },
    Pack {
        name: "no-accidents",
        text: include_str!("../../../policies/packs/no-accidents.cedar"),
    },
];

/// A ready-made set of policies for one workload at one target.
#[derive(Clone, Copy, Debug)]
pub struct Pack {
    /// As the operator asks for it.
    pub name: &'static str,
    /// Cedar with WORKLOAD and TARGET in the place of names.
    text: &'static str,
}

impl Pack {
    /// What it is for: the first line of its file.
    pub fn summary(&self) -> &'static str {
        let line = self.text.lines().next().unwrap_or_default();
        line.trim_start_matches("// ")
    }

    /// Its text, with the placeholders.
    pub fn text(&self) -> &'static str {
        self.text
    }

    /// The policies for `workload` at `target`, as the text of a file.
    pub fn instantiate(&self, workload: &WorkloadName, target: &TargetName) -> String {
        let literal = |name: &str| name.escape_default().to_string();
        self.text
            .replace("WORKLOAD", &literal(workload.as_str()))
            .replace("TARGET", &literal(&Resource::target().entity_id(target)))
    }
}
