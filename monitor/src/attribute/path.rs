//! A cgroup path → container, pod, systemd unit, scheduler job. Pure, and linear in the length of the path.

use crate::death::Qos;
use crate::text;

use super::patterns::{CONTAINER_REGEXES, JOB_REGEXES, POD_REGEX};

/// Endings of the systemd units that hold processes, besides slices, which only group.
const UNITS: &[&str] = &[".service", ".scope", ".socket", ".mount", ".swap"];

/// Components that a container pattern may look at: the container's own, and two above it.
const WINDOW: usize = 3;

/// What a cgroup path says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The innermost container.
    pub container: Option<Container>,
    /// The innermost pod's uid, with `-`; of a static pod, 32 hex digits.
    pub pod_uid: Option<String>,
    /// The pod's quality of service class.
    pub qos: Option<Qos>,
    /// The innermost systemd unit, not above the container: the runtime's service is not the container's.
    pub unit: Option<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id in its runtime.
    pub bare_id: String,
    /// The runtime, such as `containerd`, if the path tells.
    pub runtime: Option<&'static str>,
}

impl Container {
    /// The id in the form that Kubernetes and kube-state-metrics use, `containerd://…`; bare without a known runtime.
    #[must_use]
    pub fn id(&self) -> String {
        match self.runtime {
            Some(runtime) => format!("{runtime}://{}", self.bare_id),
            None => self.bare_id.clone(),
        }
    }
}

/// A job of a scheduler, as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathJob {
    /// The scheduler, such as `slurm`.
    pub scheduler: &'static str,
    /// Its id.
    pub id: String,
    /// Whether `id` is not what the scheduler's own commands show, so that one from the environment is to be preferred.
    pub alias: bool,
    /// A name for it.
    pub name: Option<String>,
}

/// Reads a path from its leaf to its root; the first container, pod and unit win.
#[must_use]
pub fn identify(path: &str) -> Identity {
    let spans = components(path);
    let mut identity = Identity::default();
    for (nth, (start, end)) in spans.iter().copied().enumerate().rev() {
        let component = &path[start..end];
        if identity.container.is_none() {
            // A container's own mounts carry its id too.
            if !component.ends_with(".mount") {
                let first = spans[(nth + 1).saturating_sub(WINDOW)].0;
                identity.container = container(&path[first..end]);
            }
            if identity.container.is_none() && identity.unit.is_none() {
                identity.unit = unit(component);
            }
        }
        if identity.pod_uid.is_none()
            && let Some(uid) = pod(component)
        {
            identity.pod_uid = Some(uid);
            identity.qos = qos(spans[..=nth].iter().rev().map(|(start, end)| &path[*start..*end]));
        }
    }
    identity
}

/// The job that a path names.
#[must_use]
pub fn job(path: &str) -> Option<PathJob> {
    JOB_REGEXES.iter().find_map(|(regex, row)| {
        let groups = regex.captures(path)?;
        let id = groups.name("id")?.as_str().to_owned();
        let name = groups.name("name").map(|name| unescape(name.as_str()));
        Some(PathJob { scheduler: row.scheduler, id, alias: row.alias, name })
    })
}

/// Where each component starts and ends.
fn components(path: &str) -> Vec<(usize, usize)> {
    let mut start = 0;
    let mut spans = Vec::new();
    for part in path.split('/') {
        let end = start + part.len();
        if !part.is_empty() {
            spans.push((start, end));
        }
        start = end + 1;
    }
    spans
}

fn container(window: &str) -> Option<Container> {
    CONTAINER_REGEXES.iter().find_map(|(regex, row)| {
        let id = regex.captures(window)?.get(1)?.as_str().to_owned();
        Some(Container { bare_id: id, runtime: row.runtime })
    })
}

fn pod(component: &str) -> Option<String> {
    let groups = POD_REGEX.as_ref()?.captures(component)?;
    Some(groups.get(1)?.as_str().replace('_', "-"))
}

/// The class is a word of the pod's own name (systemd driver) or the directory above it (cgroupfs driver); Guaranteed has no
/// word. Below no `kubepods` it is not the kubelet's, and nothing is known.
fn qos<'a>(from_pod_up: impl Iterator<Item = &'a str>) -> Option<Qos> {
    let mut class = Qos::Guaranteed;
    for component in from_pod_up {
        let words = || component.split(['-', '.', ':']);
        if words().any(|word| word == "burstable") {
            class = Qos::Burstable;
        } else if words().any(|word| word == "besteffort") {
            class = Qos::BestEffort;
        }
        if words().any(|word| word == "kubepods") {
            return Some(class);
        }
    }
    None
}

fn unit(component: &str) -> Option<String> {
    UNITS.iter().any(|ending| component.ends_with(ending)).then(|| {
        // systemd puts `_` before a name that would look like a file of the kernel's.
        unescape(component.strip_prefix('_').unwrap_or(component))
    })
}

/// Undoes systemd's `\xNN`. Control characters stay as they are written, and so does what is not UTF-8 in the end.
fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escape = match tail {
            [b'x', high, low, after @ ..] if *first == b'\\' => {
                hex(*high, *low).map(|byte| (byte, after))
            }
            _ => None,
        };
        match escape {
            Some((byte, after)) if !byte.is_ascii_control() => {
                bytes.push(byte);
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    text::from_bytes(&bytes)
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    const GOLDEN: &str = include_str!("golden.txt");
    /// What stands for ids in the golden file.
    const SHORT: &[(&str, &str)] = &[
        ("{A}", "3f2a9c0d1e4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeef"),
        ("{B}", "00aa11bb22cc33dd44ee55ff66778899aabbccddeeff00112233445566778899"),
        ("{U}", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"),
        ("{V}", "0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9"),
        ("{W}", "ffffffff-0000-1111-2222-333333333333"),
        ("{S}", "5ed7c3d2a1b0f9e8d7c6b5a493827160"),
    ];

    fn long(text: &str) -> String {
        SHORT.iter().fold(text.to_owned(), |text, (short, long)| text.replace(short, long))
    }

    fn told(path: &str) -> String {
        let identity = identify(path);
        let job = job(path).map(|job| {
            let name = job.name.map_or_else(String::new, |name| format!("({name})"));
            format!("{}{}:{}{name}", job.scheduler, if job.alias { "~" } else { "" }, job.id)
        });
        let parts = [
            ("container", identity.container.map(|container| container.id())),
            ("pod", identity.pod_uid),
            ("qos", identity.qos.map(|qos| format!("{qos:?}"))),
            ("unit", identity.unit),
            ("job", job),
        ];
        let known: Vec<String> = parts
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}={}", value?)))
            .collect();
        if known.is_empty() { "nothing".to_owned() } else { known.join(" ") }
    }

    #[test]
    fn golden_paths() {
        let lines: Vec<&str> =
            GOLDEN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let mut seen = BTreeSet::new();
        for pair in lines.chunks(2) {
            let [path, expected] = pair else { panic!("a path without its answer: {pair:?}") };
            assert!(path.starts_with('/') && expected.starts_with("  "), "{pair:?}");
            assert!(seen.insert(path), "twice: {path}");
            assert_eq!(told(&long(path)), long(expected.trim_start()), "{path}");
        }
        assert!(seen.len() >= 40, "{}", seen.len());
    }

    #[test]
    fn names_may_hold_anything() {
        let id = "a".repeat(64);
        let container = |path: &str| identify(path).container.map(|container| container.id());
        assert_eq!(container(&format!("/docker/{id}\n")), None, "a newline does not end a path");
        assert_eq!(container(&format!("/x\n/docker-{id}.scope")), Some(format!("docker://{id}")));
        assert_eq!(container("/lxc/a\nb").as_deref(), Some("lxc://a\nb"));
        assert_eq!(container(&format!("/docker/{}", id.to_uppercase())), None);
        assert_eq!(container(&format!("/docker/{}", &id[1..])), None);
        assert_eq!(identify("").unit, None);
        assert_eq!(job("/slurm/uid_0/job_٣"), None, "digits of other scripts are not a number");
    }

    #[test]
    fn unescapes_what_a_person_can_read() {
        assert_eq!(unescape(r"a\x2db\x40c"), "a-b@c");
        assert_eq!(unescape(r"\xc3\xa9\xff"), r"é\xff");
        assert_eq!(unescape(r"a\x0ab\x00\x1b[31m\x7f"), r"a\x0ab\x00\x1b[31m\x7f");
        assert_eq!(unescape(r"\x2\xzz\"), r"\x2\xzz\");
    }

    #[test]
    fn long_hostile_paths_are_read_in_time() {
        let component = format!("/{}", "a".repeat(63));
        let words = [
            "/a",
            "/",
            "/lxc",
            "/slurm_a_slurmstepd.scope",
            "/pod",
            "/kubepods-burstable",
            component.as_str(),
        ];
        for word in words {
            let path = word.repeat((256 << 10) / word.len());
            let start = Instant::now();
            let _ = (identify(&path), job(&path));
            // Linear work takes well under a second even in a debug build; quadratic work takes minutes.
            assert!(start.elapsed() < Duration::from_secs(20), "{word}: {:?}", start.elapsed());
        }
    }

    proptest! {
        #[test]
        fn any_path_is_survived(path in any::<String>()) {
            let _ = (identify(&path), job(&path));
        }

        #[test]
        fn what_is_named_is_in_the_path(
            parts in proptest::collection::vec(prop_oneof![
                Just(long("docker-{A}.scope")), Just(long("{B}")), Just(long("kubepods-burstable-pod{V}.slice")),
                Just(long("crio-conmon-{A}.scope")), Just("lxc".to_owned()), Just("nginx.service".to_owned()),
                Just("job_7".to_owned()), Just("slurmstepd.scope".to_owned()), ".{0,20}",
            ], 0..8),
        ) {
            let path = format!("/{}", parts.join("/"));
            let identity = identify(&path);
            if let Some(container) = identity.container {
                prop_assert!(path.contains(&container.bare_id));
            }
            if let Some(uid) = identity.pod_uid {
                prop_assert!(path.replace('_', "-").contains(&uid));
            }
            prop_assert!(identity.qos.is_none() || path.contains("kubepods"));
            if let Some(job) = job(&path) {
                prop_assert!(path.contains(&job.id));
            }
        }
    }
}
