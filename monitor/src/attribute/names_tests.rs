//! What is taken from a runtime, what is not, and what a lie comes to.

use std::collections::BTreeMap;

use super::{Asked, CGROUP_PATH, named, workload, workload_among};
use crate::containers::Info;
use crate::death::Workload;

const UID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";

fn id(digit: &str) -> String {
    digit.repeat(64)
}

fn pod_path() -> String {
    format!("/kubepods/burstable/pod{UID}/{}", id("a"))
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn info() -> Info {
    Info {
        id: id("a"),
        source: "cri",
        runtime: Some("containerd".to_owned()),
        name: Some("app".to_owned()),
        pod: Some("web-0".to_owned()),
        namespace: Some("shop".to_owned()),
        pod_uid: Some(UID.to_owned()),
        sandbox_id: Some(id("5")),
        image: Some("web:1".to_owned()),
        attempt: Some(0),
        labels: map(&[("team", "x"), ("job-name", "j")]),
        annotations: map(&[("note", "n")]),
    }
}

fn asked() -> Asked {
    Asked { labels: ["team".to_owned()].into(), annotations: ["none".to_owned()].into() }
}

#[test]
fn fills_in_what_the_path_does_not_say() {
    let mut known = workload(Some(&pod_path()), Some(7));
    let before = known.clone();
    assert!(named(&mut known, &info(), &asked()));
    assert_eq!(known.container_id.as_deref(), Some(format!("containerd://{}", id("a")).as_str()));
    let said: Vec<_> =
        known.sources.iter().map(|(key, source)| format!("{key}<{source}")).collect();
    assert_eq!(
        said.join(" "),
        "attempt<cri container<cri container_id<cgroup_path image<cri labels<cri namespace<cri pod<cri pod_uid<cgroup_path \
         qos<cgroup_path runtime<cri sandbox_id<cri"
    );
    assert_eq!(known.labels, map(&[("team", "x")]), "only what was asked for");
    assert!(known.annotations.is_empty());
    assert_eq!(
        (
            known.pod.as_deref(),
            known.namespace.as_deref(),
            known.container.as_deref(),
            known.attempt
        ),
        (Some("web-0"), Some("shop"), Some("app"), Some(0))
    );
    assert_eq!(
        (known.cgroup.clone(), known.qos, known.pod_uid.clone()),
        (before.cgroup, before.qos, before.pod_uid)
    );
    let once = known.clone();
    assert!(named(&mut known, &info(), &asked()));
    assert_eq!(known, once, "twice is once");
}

#[test]
fn what_is_known_stays() {
    let mut known = workload(Some(&format!("/system.slice/docker-{}.scope", id("a"))), None);
    let lying = Info { runtime: Some("podman".to_owned()), source: "podman", ..info() };
    assert!(named(&mut known, &lying, &Asked::default()));
    assert_eq!(known.runtime.as_deref(), Some("docker"));
    assert_eq!(known.sources["runtime"], CGROUP_PATH);
    assert_eq!(known.container_id, Some(format!("docker://{}", id("a"))));
    let second = Info { name: Some("other".to_owned()), source: "docker", ..info() };
    assert!(named(&mut known, &second, &Asked::default()));
    assert_eq!(
        (known.container.as_deref(), known.sources["container"].as_str()),
        (Some("app"), "podman")
    );
}

#[test]
fn nothing_said_is_nothing_known() {
    let mut known = workload(Some(&pod_path()), None);
    let before = known.clone();
    let empty = Info { id: id("a"), source: "cri", ..Info::default() };
    assert!(named(&mut known, &empty, &asked()));
    assert_eq!(known, before);
}

#[test]
fn another_container_or_pod_is_refused() {
    let clean = workload(Some(&pod_path()), None);
    for other in [
        Info { id: id("b"), ..info() },
        Info { pod_uid: Some("ffffffff-0000-1111-2222-333333333333".to_owned()), ..info() },
    ] {
        let mut known = clean.clone();
        assert!(!named(&mut known, &other, &asked()));
        assert_eq!(known, clean);
    }
}

#[test]
fn a_workload_without_a_container_takes_the_id_too() {
    let mut known = Workload::default();
    assert!(named(&mut known, &info(), &Asked::default()));
    assert_eq!(known.container_id, Some(format!("containerd://{}", id("a"))));
    assert_eq!(known.sources["container_id"], "cri");
}

#[test]
fn a_name_made_up_inside_a_container_is_not_believed() {
    let path = format!("{}/cri-containerd-{}.scope/x", pod_path(), id("b"));
    let of = |known: &[String]| {
        workload_among(Some(&path), None, |id| known.iter().any(|known| known == id)).container_id
    };
    let inner = Some(format!("containerd://{}", id("b")));
    // A node of kind, whose own runtime knows the inner one alone; and nobody knows anything.
    assert_eq!(of(&[id("b")]), inner);
    assert_eq!(of(&[]), inner);
    // The inner one is a container in a container that nobody was asked about.
    assert_eq!(of(&[id("a")]), inner);
    assert_eq!(
        of(&[id("a"), id("b")]),
        Some(id("a")),
        "the runtime of both did not put one into the other"
    );
    let both = workload_among(Some(&path), Some(3), |_| true);
    assert_eq!(
        (both.cgroup.as_deref(), both.pod_uid.as_deref(), both.cgroup_id),
        (Some(path.as_str()), Some(UID), Some(3))
    );
    // Calling oneself the same below oneself is no lie.
    let same = format!("/docker/{0}/docker/{0}", id("a"));
    assert_eq!(
        workload_among(Some(&same), None, |_| true).container_id,
        Some(format!("docker://{}", id("a")))
    );
}
