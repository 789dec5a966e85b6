use std::path::{Path, PathBuf};

use lockgate_command::WorkloadName;
use lockgate_config::Workload;

use crate::cgroup;
use crate::{Origin, WorkloadError};

/// One `[[workload]]`, checked.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: WorkloadName,
    unit: Option<Unit>,
    container: Option<String>,
    uid: Option<u32>,
    executable: Option<PathBuf>,
    pub(crate) sha256: Option<[u8; 32]>,
    ancestor: Option<PathBuf>,
}

/// How specific a rule is. Compared field by field in this order; see
/// [`crate::Workloads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Specificity {
    container_digits: usize,
    unit: (UnitKind, usize),
    user: bool,
    sha256: bool,
    executable: bool,
    ancestor: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum UnitKind {
    None,
    SlicePath,
    Name,
    Path,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Unit {
    /// In any slice below `/system.slice`.
    Name(String),
    /// The full path, without a `/` at its end.
    Path(String),
}

impl Rule {
    /// Checks one entry. `uid` is that of its `user`.
    pub(crate) fn new(entry: &Workload, uid: Option<u32>) -> Result<Self, WorkloadError> {
        let name = &entry.name;
        if name == WorkloadName::unknown().as_str() {
            return Err(WorkloadError::Reserved);
        }
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
        if name.is_empty() || name.starts_with(['-', '.']) || !name.chars().all(ok) {
            return Err(WorkloadError::Name(name.clone()));
        }
        if entry.unit.is_none() && entry.container.is_none() && entry.user.is_none() {
            return Err(WorkloadError::ExecutableOnly(name.clone()));
        }
        let wrong = |field, value: &str, reason| WorkloadError::Field {
            workload: name.clone(),
            field,
            value: value.to_owned(),
            reason,
        };
        let unit = match &entry.unit {
            Some(text) => Some(Unit::new(text).map_err(|why| wrong("unit", text, why))?),
            None => None,
        };
        if let Some(id) = entry.container.as_deref()
            && !cgroup::is_container_id(id)
        {
            let why = "is not a container id; write 12 to 64 lower-case hex digits";
            return Err(wrong("container", id, why));
        }
        let uid = match (&entry.user, uid) {
            (None, _) => None,
            (Some(_), Some(uid)) => Some(uid),
            (Some(user), None) => Some(user.parse().map_err(|_| {
                wrong(
                    "user",
                    user,
                    "is not known on this host; write an existing name or a uid",
                )
            })?),
        };
        for (field, path) in [
            ("executable", &entry.executable),
            ("ancestor", &entry.ancestor),
        ] {
            if let Some(path) = path
                && !path_is_plain(path)
            {
                let why = "is not a full path; write it as /proc/PID/exe shows it, without links, `.` or `..`";
                return Err(wrong(field, &path.to_string_lossy(), why));
            }
        }
        let sha256 = match entry.sha256.as_deref() {
            Some(hex) => Some(digest(hex).ok_or_else(|| {
                wrong(
                    "sha256",
                    hex,
                    "is not a SHA-256; write the 64 hex digits sha256sum prints",
                )
            })?),
            None => None,
        };
        Ok(Self {
            name: WorkloadName::from(name.as_str()),
            unit,
            container: entry.container.clone(),
            uid,
            executable: entry.executable.clone(),
            sha256,
            ancestor: entry.ancestor.clone(),
        })
    }

    pub(crate) fn matches(&self, origin: &Origin) -> bool {
        let executable = origin.executable.as_ref();
        self.matches_but_for_sha256(origin)
            && self
                .sha256
                .is_none_or(|digest| executable.is_some_and(|own| own.sha256 == Some(digest)))
    }

    pub(crate) fn matches_but_for_sha256(&self, origin: &Origin) -> bool {
        let cgroup = origin.cgroup.as_deref();
        let executable = origin.executable.as_ref();
        self.unit
            .as_ref()
            .is_none_or(|unit| cgroup.is_some_and(|path| unit.holds(path)))
            && self.container.as_deref().is_none_or(|id| {
                cgroup
                    .and_then(cgroup::container_id)
                    .is_some_and(|own| own.starts_with(id))
            })
            && self.uid.is_none_or(|uid| origin.uid == uid)
            && self
                .executable
                .as_ref()
                .is_none_or(|path| executable.is_some_and(|own| own.path == *path))
            && self.ancestor.as_ref().is_none_or(|path| {
                origin
                    .ancestors
                    .iter()
                    .any(|above| above.executable.as_ref() == Some(path))
            })
    }

    pub(crate) fn executables(&self) -> impl Iterator<Item = &Path> {
        [&self.executable, &self.ancestor]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    pub(crate) fn specificity(&self) -> Specificity {
        Specificity {
            container_digits: self.container.as_ref().map_or(0, String::len),
            unit: self
                .unit
                .as_ref()
                .map_or((UnitKind::None, 0), Unit::specificity),
            user: self.uid.is_some(),
            sha256: self.sha256.is_some(),
            executable: self.executable.is_some(),
            ancestor: self.ancestor.is_some(),
        }
    }

    /// Whether a process can match both rules although neither is more
    /// specific. At equal specificity two units, ids, uids, paths or digests
    /// are the same or exclude each other; only ancestors do not.
    pub(crate) fn is_ambiguous_with(&self, other: &Self) -> bool {
        self.specificity() == other.specificity()
            && self.unit == other.unit
            && self.container == other.container
            && self.uid == other.uid
            && self.sha256 == other.sha256
            && self.executable == other.executable
    }

    pub(crate) fn has_ancestor_of(&self, other: &Self) -> bool {
        self.ancestor == other.ancestor
    }
}

impl Unit {
    fn new(text: &str) -> Result<Self, &'static str> {
        let name_ok = |name: &str| !name.is_empty() && name != "." && name != "..";
        let printable = text.chars().all(|c| c.is_ascii_graphic());
        if text.starts_with('/') {
            let path = text.strip_suffix('/').unwrap_or(text);
            if path.is_empty() || !printable || !path[1..].split('/').all(name_ok) {
                return Err(
                    "is not a cgroup path; write it as /proc/PID/cgroup shows it, such as /system.slice/job.service",
                );
            }
            if cgroup::is_named_by_a_user(path) {
                return Err(
                    "is below a user's own systemd manager, where that user chooses the names; match on `user` instead",
                );
            }
            return Ok(Self::Path(path.to_owned()));
        }
        if text.contains('/') {
            return Err(
                "has a `/` but does not begin with one; write a unit's name or a full cgroup path",
            );
        }
        if cgroup::is_slice(text) {
            return Err(
                "is a slice; write its full cgroup path, such as /system.slice/system-jobs.slice",
            );
        }
        if !printable || !text.contains('.') || text.starts_with('.') || text.ends_with('.') {
            return Err(
                "is not the full name of a unit; write it with its suffix, such as nightly-report.service",
            );
        }
        Ok(Self::Name(text.to_owned()))
    }

    fn holds(&self, path: &str) -> bool {
        match self {
            Self::Name(name) => cgroup::system_unit(path) == Some(name),
            Self::Path(above) => cgroup::is_at_or_below(path, above),
        }
    }

    fn specificity(&self) -> (UnitKind, usize) {
        match self {
            Self::Name(_) => (UnitKind::Name, 0),
            Self::Path(path) => {
                let kind = match cgroup::is_slice_path(path) {
                    true => UnitKind::SlicePath,
                    false => UnitKind::Path,
                };
                (kind, cgroup::components(path).count())
            }
        }
    }
}

fn path_is_plain(path: &std::path::Path) -> bool {
    // Compared as text: `Path` equality would read `/usr//bin/x` as `/usr/bin/x`.
    let rebuilt: PathBuf = path.components().collect();
    path.is_absolute()
        && rebuilt.as_os_str() == path.as_os_str()
        && !path
            .components()
            .any(|c| matches!(c, std::path::Component::ParentDir))
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let nibble = |byte: u8| (byte as char).to_digit(16).map(|value| value as u8);
    let bytes = hex.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    for (out, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        *out = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(digest)
}
