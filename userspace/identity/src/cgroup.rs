//! What a cgroup v2 path says, read as systemd and the container runtimes
//! write it (systemd.slice(5), systemd.scope(5), the runtimes' cgroup drivers).

/// Shortest container id that is accepted, as the runtimes' own tools print it.
pub(crate) const SHORT_CONTAINER_ID: usize = 12;

/// The system unit and whether it is one: the first component of `path` below
/// `/system.slice` that is not a slice itself. Whatever is below belongs to
/// that unit, since a delegated subtree is named by the unit's own processes.
pub(crate) fn system_unit(path: &str) -> Option<&str> {
    let mut components = components(path);
    match components.next() {
        Some("system.slice") => components.find(|name| !is_slice(name)),
        _ => None,
    }
}

/// The container id in `path`. Read only where root alone names cgroups: the
/// first component that is not a slice, and never in `/user.slice`, where
/// every user can make a scope of any name.
pub(crate) fn container_id(path: &str) -> Option<&str> {
    let mut components =
        components(path).skip_while(|name| is_slice(name) && *name != "user.slice");
    let id = match components.next()? {
        // The cgroupfs driver of Docker.
        "docker" => components.next()?,
        // Podman's cgroupfs driver.
        "libpod_parent" => components.next()?.strip_prefix("libpod-")?,
        scope => {
            let scope = scope.strip_suffix(".scope")?;
            ["docker-", "cri-containerd-", "libpod-", "crio-"]
                .iter()
                .find_map(|runtime| scope.strip_prefix(runtime))?
        }
    };
    is_container_id(id).then_some(id)
}

/// Whether `path` is `above` or lies below it.
pub(crate) fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || above == "/")
}

/// Whether the last part of `path` was named by a user's own systemd manager.
pub(crate) fn is_named_by_a_user(path: &str) -> bool {
    let mut components = components(path);
    components.next() == Some("user.slice")
        && components
            .skip_while(|name| !name.starts_with("user@"))
            .nth(1)
            .is_some()
}

/// Whether every component is a slice.
pub(crate) fn is_slice_path(path: &str) -> bool {
    components(path).all(is_slice)
}

pub(crate) fn is_slice(name: &str) -> bool {
    name.ends_with(".slice")
}

pub(crate) fn is_container_id(id: &str) -> bool {
    (SHORT_CONTAINER_ID..=64).contains(&id.len())
        && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f2c1e0d9b8a7766554433221100ffeeddccbbaa99887766554433221100abcd";

    #[test]
    fn every_runtime_s_form_is_read() {
        for path in [
            format!("/system.slice/docker-{ID}.scope"),
            format!("/docker/{ID}"),
            format!("/docker/{ID}/inner"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/libpod_parent/libpod-{ID}"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod12.slice/crio-{ID}.scope"),
        ] {
            assert_eq!(container_id(&path), Some(ID), "{path}");
        }
    }

    #[test]
    fn an_id_that_others_than_root_could_write_is_not_read() {
        for path in [
            format!("/user.slice/user-1000.slice/user@1000.service/app.slice/docker-{ID}.scope"),
            format!("/user.slice/docker-{ID}.scope"),
            format!("/system.slice/ci.service/docker-{ID}.scope"),
            format!("/docker/0123/docker/{ID}"),
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            "/system.slice/docker-short.scope".into(),
            "/system.slice/docker.service".into(),
        ] {
            assert_eq!(container_id(&path), None, "{path}");
        }
    }

    #[test]
    fn a_unit_is_the_first_that_is_no_slice() {
        assert_eq!(system_unit("/system.slice/a.service"), Some("a.service"));
        assert_eq!(
            system_unit("/system.slice/system-jobs.slice/a.service/b.service"),
            Some("a.service")
        );
        assert_eq!(
            system_unit("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service"),
            None
        );
        assert_eq!(system_unit("/system.slice"), None);
    }

    #[test]
    fn below_is_by_component() {
        assert!(is_at_or_below("/a/b", "/a"));
        assert!(is_at_or_below("/a", "/a"));
        assert!(!is_at_or_below("/ab", "/a"));
    }
}
