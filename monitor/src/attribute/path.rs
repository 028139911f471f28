//! A cgroup path → container, pod, systemd unit. Pure, and linear in the length of the path.
//!
//! It is read from the leaf to the root, so that of containers in a container (kind, Docker in Docker) the inner one is told, which is what the
//! victim ran in. The price: whoever may make cgroups below its own can name them like another's container, and its own deaths then go by
//! that name. The path alone cannot tell the two apart, since both are made by the outer container. A runtime that knows the outer one can:
//! see [`believed`].

use crate::death::Qos;
use crate::text;

use super::patterns::{
    ANY_CONTAINER, CONTAINER_REGEXES, ContainerPattern, NSPAWN_ITSELF, POD_REGEX,
};

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
    /// The pattern that matched.
    pub pattern: &'static ContainerPattern,
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

/// Most containers of one path that are looked at.
const MAX_NESTED: usize = 8;

/// Reads a path from its leaf to its root; the first container, pod and unit win.
#[must_use]
pub fn identify(path: &str) -> Identity {
    let spans = components(path);
    let mut identity = Identity::default();
    for (nth, (start, end)) in spans.iter().copied().enumerate().rev() {
        let component = &path[start..end];
        if identity.container.is_none() {
            identity.container = container_at(path, &spans, nth);
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

/// Every container that a path names, the innermost first, at most 8.
#[must_use]
pub fn containers(path: &str) -> Vec<Container> {
    nested(path).map(|(_, container)| container).collect()
}

/// The part of a path that is to be believed: the whole, unless a container's name in it was made up.
///
/// A runtime does not put one of its containers into another. So if a source `knows` (by the bare id) the innermost container and another
/// further out, the inner name was made up in the outer one, and only the path down to that counts. If the inner one alone is known, as on a
/// node of kind, or none is, it is told as it stands. Two runtimes that are both asked, one in a container of the other, are taken for a lie.
pub fn believed(path: &str, knows: impl Fn(&str) -> bool) -> &str {
    let mut nested = nested(path);
    let innermost = nested.next().filter(|(_, innermost)| knows(&innermost.bare_id));
    let outermost = innermost.and_then(|(_, innermost)| {
        nested
            .filter(|(_, outer)| outer.bare_id != innermost.bare_id && knows(&outer.bare_id))
            .last()
    });
    outermost.and_then(|(end, _)| path.get(..end)).unwrap_or(path)
}

/// Containers from the leaf to the root, each with where its component ends.
fn nested(path: &str) -> impl Iterator<Item = (usize, Container)> {
    let spans = components(path);
    let found = (0..spans.len()).rev().filter_map(move |nth| {
        let (_, end) = *spans.get(nth)?;
        Some((end, container_at(path, &spans, nth)?))
    });
    found.take(MAX_NESTED)
}

/// The container whose cgroup ends with a component.
fn container_at(path: &str, spans: &[(usize, usize)], nth: usize) -> Option<Container> {
    let (start, end) = *spans.get(nth)?;
    // A container's own mounts carry its id too.
    if path[start..end].ends_with(".mount") {
        return None;
    }
    let (first, _) = *spans.get((nth + 1).saturating_sub(WINDOW))?;
    let found = container(&path[first..end])?;
    let below = spans.get(nth + 1).map(|(start, end)| &path[*start..*end]);
    let itself = found.runtime == Some("systemd-nspawn") && below == Some(NSPAWN_ITSELF);
    (!itself).then_some(found)
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
    if ANY_CONTAINER.as_ref().is_some_and(|any| !any.is_match(window)) {
        return None;
    }
    // Most match nothing, and to ask for groups takes memory for them before it is looked whether there are any.
    let mut matching = CONTAINER_REGEXES.iter().filter(|(regex, _)| regex.is_match(window));
    matching.find_map(|(regex, row)| {
        let id = regex.captures(window)?.get(1)?.as_str();
        let bare_id = if row.escaped { unescape(id) } else { id.to_owned() };
        Some(Container { bare_id, runtime: row.runtime, pattern: row })
    })
}

fn pod(component: &str) -> Option<String> {
    let groups =
        POD_REGEX.as_ref().filter(|regex| regex.is_match(component))?.captures(component)?;
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
pub(super) fn unescape(name: &str) -> String {
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
