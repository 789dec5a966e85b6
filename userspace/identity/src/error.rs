/// Why a `[[workload]]` is refused. Each names the workload and what to write
/// instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// A name that policies or the record could not carry.
    #[error(
        "workload `{0}`: a name is letters, digits, `-`, `_`, `.` and `@`, and does not begin with `-` or `.`"
    )]
    Name(String),
    /// `unknown` is the principal of who matches nothing.
    #[error(
        "workload `unknown`: the name is taken by processes that match no workload; choose another"
    )]
    Reserved,
    /// Two entries of one name.
    #[error("workload `{0}` is there twice; give each its own name")]
    Duplicate(String),
    /// Nothing in it rests on what the kernel attests about who runs.
    #[error(
        "workload `{0}` names neither unit, container nor user: any process that may run the executable would become this workload; add the unit, container or user it runs as"
    )]
    ExecutableOnly(String),
    /// A field that cannot be used as it is written.
    #[error("workload `{workload}`: {field} `{value}` {reason}")]
    Field {
        /// The workload's name.
        workload: String,
        /// The key in the configuration.
        field: &'static str,
        /// As written.
        value: String,
        /// What is wrong and what to write, continuing the sentence.
        reason: &'static str,
    },
    /// Two entries that can both match a process, neither being more specific.
    #[error(
        "workloads `{first}` and `{second}` can both match the same process and neither is more specific{}; add a condition to one of them, or merge them",
        if *ancestors { " (a process can have both ancestors)" } else { "" }
    )]
    Ambiguous {
        /// The name that sorts first.
        first: String,
        /// The other.
        second: String,
        /// Whether they differ in the ancestor alone.
        ancestors: bool,
    },
}
