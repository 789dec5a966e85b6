use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{Effect, Policy, PolicyId, PolicySet};
use lockgate_command::PolicyRef;
use lockgate_config::PolicyFile;
use miette::Diagnostic;

use crate::{Finding, Severity};

/// One policy and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// Its id is that of `reference`.
    pub(crate) policy: Policy,
    pub(crate) reference: PolicyRef,
    /// The `@reason` annotation.
    pub(crate) reason: Option<Arc<str>>,
    /// The text and where in the file it begins, to find lines in it.
    source: Arc<str>,
    span: std::ops::Range<usize>,
}

impl Placed {
    pub(crate) fn forbids(&self) -> bool {
        self.policy.effect() == Effect::Forbid
    }

    /// A finding at the first place where `text` stands in the policy, or at
    /// its begin.
    pub(crate) fn finding(
        &self,
        severity: Severity,
        text: Option<&str>,
        message: String,
        suggestion: Option<String>,
    ) -> Finding {
        let within = self.source.get(self.span.clone()).unwrap_or_default();
        let line = match text.and_then(|text| within.find(text)) {
            Some(at) => line_of(&self.source, self.span.start + at),
            None => self.reference.line,
        };
        Finding {
            severity,
            file: self.reference.file.to_string(),
            line,
            message,
            suggestion,
        }
    }

    /// A finding for what Cedar says of this policy, with a suggestion for
    /// where Cedar has none.
    pub(crate) fn diagnostic(
        &self,
        severity: Severity,
        diagnostic: &dyn Diagnostic,
        suggestion: Option<&str>,
    ) -> Finding {
        let id = &self.reference.id;
        let message = format!(
            "policy `{id}`: {}",
            without_prefix(&diagnostic.to_string(), id)
        );
        Finding {
            severity,
            file: self.reference.file.to_string(),
            line: first_label(diagnostic)
                .map_or(self.reference.line, |at| line_of(&self.source, at)),
            message,
            suggestion: diagnostic
                .help()
                .map(|help| help.to_string())
                .or_else(|| suggestion.map(str::to_owned)),
        }
    }
}

/// Reads the policies of all files and gives them their ids.
pub(crate) fn read(files: &[PolicyFile]) -> (Vec<Placed>, Vec<Finding>) {
    let mut all: Vec<Placed> = Vec::new();
    let mut findings = Vec::new();
    for file in files {
        match file.text.parse::<PolicySet>() {
            Ok(set) => all.extend(placed(file, &set, &mut findings)),
            Err(errors) => findings.extend(errors.iter().map(|error| Finding {
                severity: Severity::Error,
                file: file.name.clone(),
                line: first_label(error).map_or(1, |at| line_of(&file.text, at)),
                message: error.to_string(),
                suggestion: error.help().map(|help| help.to_string()),
            })),
        }
    }
    let mut first: HashMap<Arc<str>, PolicyRef> = HashMap::new();
    for placed in &all {
        let reference = &placed.reference;
        if let Some(PolicyRef { file, line, .. }) = first.get(&reference.id) {
            findings.push(placed.finding(
                Severity::Error,
                None,
                format!(
                    "the id `{}` is already that of the policy at {file}:{line}",
                    reference.id
                ),
                Some("give each policy its own @id".into()),
            ));
        } else {
            first.insert(reference.id.clone(), reference.clone());
        }
    }
    (all, findings)
}

fn placed(file: &PolicyFile, set: &PolicySet, findings: &mut Vec<Finding>) -> Vec<Placed> {
    let name: Arc<str> = file.name.as_str().into();
    let source: Arc<str> = file.text.as_str().into();
    for template in set.templates() {
        let at = template.as_ref().loc().map_or(0, |loc| loc.start());
        findings.push(Finding {
            severity: Severity::Error,
            file: file.name.clone(),
            line: line_of(&file.text, at),
            message: "a template (?principal, ?resource) decides nothing by itself".into(),
            suggestion: Some("write the workload and the resource in its place".into()),
        });
    }
    let mut policies: Vec<(std::ops::Range<usize>, &Policy)> = set
        .policies()
        .map(|policy| {
            let span = policy
                .as_ref()
                .loc()
                .map_or(0..0, |loc| loc.start()..loc.end());
            (span, policy)
        })
        .collect();
    policies.sort_by_key(|(span, _)| span.start);
    let mut all = Vec::with_capacity(policies.len());
    for (index, (span, policy)) in policies.into_iter().enumerate() {
        let id = match policy.annotation("id") {
            Some(id) if is_fit(id) => id.to_owned(),
            Some(id) => {
                findings.push(Finding {
                    severity: Severity::Error,
                    file: file.name.clone(),
                    line: line_of(&source, span.start),
                    message: format!("`{}` cannot be an @id", id.escape_debug()),
                    suggestion: Some(
                        "write 1 to 200 printable ASCII characters without spaces".into(),
                    ),
                });
                continue;
            }
            None => format!("{name}#{index}"),
        };
        let reference = PolicyRef {
            id: id.as_str().into(),
            file: name.clone(),
            line: line_of(&source, span.start),
        };
        all.push(Placed {
            policy: policy.new_id(PolicyId::new(&id)),
            reference,
            reason: policy
                .annotation("reason")
                .filter(|text| !text.is_empty())
                .map(Into::into),
            source: source.clone(),
            span,
        });
    }
    all
}

fn is_fit(id: &str) -> bool {
    (1..=200).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

fn first_label(diagnostic: &dyn Diagnostic) -> Option<usize> {
    diagnostic.labels()?.map(|label| label.offset()).min()
}

fn line_of(text: &str, offset: usize) -> u32 {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count() as u32
}

/// Cedar begins some messages with the policy's id, which we give ourselves.
fn without_prefix<'a>(message: &'a str, id: &str) -> &'a str {
    message
        .strip_prefix(&format!("for policy `{id}`, "))
        .unwrap_or(message)
}
