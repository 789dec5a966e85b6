use lockgate_command::WorkloadName;

/// Why no policy was written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuthorError {
    /// The verb is neither a verb nor a group.
    #[error("`{verb}` is neither a verb nor a group of verbs{}", suggestion.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
    Verb {
        /// As given.
        verb: String,
        /// The closest one there is.
        suggestion: Option<String>,
    },
    /// The path is not of a known form.
    #[error(
        "`{0}` is not a path; write TARGET[/DATABASE[/SCHEMA[/TABLE[/COLUMN]]]], names without `/`"
    )]
    Path(String),
}

/// Writes the policy that lets `workload` do `verb` on what is at `path`.
pub fn allow_policy(
    workload: &WorkloadName,
    verb: &str,
    path: &str,
) -> Result<String, AuthorError> {
    let _ = workload;
    let _ = verb;
    Err(AuthorError::Path(path.to_owned()))
}
