//! The overlays of deploy/kubernetes: valid to the letter, one with each other, and no more allowed than what docs/install.md gives reasons for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use killwatch_tests::daemon::binary;
use killwatch_tests::manifest::{Rendered, list, string};
use serde_json::{Value, json};

use crate::tool;

/// What no pod of ours may have, and each says why in docs/install.md.
const CAPABILITIES: [&str; 3] = ["BPF", "PERFMON", "SYS_PTRACE"];

/// The base and every overlay, by name.
fn all(kubectl: &Path) -> BTreeMap<String, Rendered> {
    let overlays = std::fs::read_dir(tool::file("deploy/kubernetes/overlays")).unwrap();
    let mut directories: Vec<PathBuf> = overlays.map(|entry| entry.unwrap().path()).collect();
    directories.push(tool::file("deploy/kubernetes/base"));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let render = |path: &PathBuf| (name(path), Rendered::of(kubectl, path).unwrap());
    directories.iter().map(render).collect()
}

#[test]
fn each_overlay_is_valid() {
    let (Some(kubectl), Some(validate)) =
        (tool::find("kubectl"), tool::find("kubernetes-validate"))
    else {
        return;
    };
    let files = tempfile::tempdir().unwrap();
    for (name, rendered) in all(&kubectl) {
        let file = files.path().join(format!("{name}.yaml"));
        std::fs::write(&file, &rendered.text).unwrap();
        let output = Command::new(&validate).arg("--strict").arg(&file).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{name}: {said}");
        // It knows Kubernetes' own kinds only; those of the operator are looked at below.
        let unknown = said.lines().filter(|line| line.starts_with("WARN"));
        let unknown: Vec<_> =
            unknown.filter(|line| !line.contains("monitoring.coreos.com/v1")).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        assert!(said.contains("passed for resource daemonset/killwatch"), "{name}: {said}");
    }
}

#[test]
fn what_refers_to_another_finds_it() {
    let Some(kubectl) = tool::find("kubectl") else { return };
    for (name, rendered) in all(&kubectl) {
        let set = rendered.one("DaemonSet").unwrap();
        let pod = rendered.pod().unwrap();
        let container = &pod["containers"][0];
        let labels = &set["spec"]["template"]["metadata"]["labels"];
        let selects = |selector: &Value| {
            let wanted = selector["matchLabels"].as_object().unwrap();
            !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
        };
        assert!(selects(&set["spec"]["selector"]), "{name}: {labels}");
        let policy = rendered.one("NetworkPolicy").unwrap();
        assert!(selects(&policy["spec"]["podSelector"]), "{name}");
        for monitor in rendered.of_kind("PodMonitor") {
            assert!(selects(&monitor["spec"]["selector"]), "{name}");
            let port = &monitor["spec"]["podMetricsEndpoints"][0]["port"];
            assert_eq!(port, &container["ports"][0]["name"], "{name}");
            let label = string(&monitor["spec"]["jobLabel"]).unwrap();
            assert_eq!(labels[label], "killwatch", "{name}: the rules look for job=killwatch");
        }
        let account = rendered.one("ServiceAccount").unwrap();
        assert_eq!(pod["serviceAccountName"], account["metadata"]["name"], "{name}");
        let names = |value: &Value| -> BTreeSet<String> {
            list(value).iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]), "{name}");
        for object in &rendered.objects {
            let kind = object["kind"].as_str().unwrap();
            let is_of_cluster = kind.starts_with("Cluster") || kind == "Namespace";
            let namespace = &object["metadata"]["namespace"];
            assert_eq!(namespace == "killwatch", !is_of_cluster, "{name}: {kind}");
        }
        // A runtime's directory has its socket where the daemon looks for it.
        let volume = |name| list(&pod["volumes"]).iter().find(|volume| volume["name"] == name);
        let mounts = list(&container["volumeMounts"]);
        let runtime = mounts.iter().find(|mount| mount["name"] == "runtime").unwrap();
        assert_eq!(runtime["mountPath"], volume("runtime").unwrap()["hostPath"]["path"], "{name}");
        let known = std::fs::read_to_string(tool::file("monitor/src/containers/cri/mod.rs"));
        let directory = format!("\"{}/", string(&runtime["mountPath"]).unwrap());
        assert!(known.unwrap().contains(&directory), "{name}: no socket of {directory} is known");
    }
}

#[test]
fn no_pod_may_more_than_it_needs() {
    let Some(kubectl) = tool::find("kubectl") else { return };
    for (name, rendered) in all(&kubectl) {
        let pod = rendered.pod().unwrap();
        let security = &pod["containers"][0]["securityContext"];
        let mut allowed = CAPABILITIES.to_vec();
        if name == "linux-5.10" {
            allowed.push("SYS_RESOURCE");
        }
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"], "add": allowed}), "{name}");
        for (key, value) in [
            ("privileged", false),
            ("allowPrivilegeEscalation", false),
            ("readOnlyRootFilesystem", true),
        ] {
            assert_eq!(security[key], value, "{name}: {key}");
        }
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for absent in ["hostNetwork", "hostIPC"] {
            assert_ne!(pod[absent], true, "{name}: {absent}");
        }
        let writable = list(&pod["containers"][0]["volumeMounts"]).iter();
        let writable = writable.filter(|mount| mount["readOnly"] != true);
        let writable: Vec<_> = writable.map(|mount| mount["mountPath"].as_str().unwrap()).collect();
        assert_eq!(writable, ["/sys/fs/bpf", "/var/lib/killwatch", "/run/killwatch"], "{name}");
        let asks = name != "minimal";
        assert_eq!(pod["automountServiceAccountToken"], asks, "{name}");
        assert_eq!(rendered.of_kind("ClusterRole").count(), usize::from(asks), "{name}");
    }
}

/// Each configuration is allowed, and says what its overlay is for.
#[test]
fn each_configuration_is_allowed() {
    let Some(kubectl) = tool::find("kubectl") else { return };
    if !binary().is_file() {
        assert!(tool::find("killwatch").is_none());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for (name, rendered) in all(&kubectl) {
        let pod = rendered.pod().unwrap();
        let mut volumes = list(&pod["volumes"]).iter();
        let map = volumes.find_map(|volume| volume.pointer("/configMap/name")).unwrap();
        let files = rendered.files(map.as_str().unwrap()).unwrap();
        let arguments: Vec<_> =
            list(&pod["containers"][0]["args"]).iter().map(|word| string(word).unwrap()).collect();
        let [("killwatch.yaml", text)] = files[..] else { panic!("{name}: {files:?}") };
        assert_eq!(arguments, ["run", "--config.file", "/etc/killwatch/killwatch.yaml"]);
        let file = directory.path().join(&name);
        std::fs::write(&file, text).unwrap();
        let said = tool::run(&binary(), ["check-config".as_ref(), file.as_os_str()]);
        let says = |line: &str| said.lines().any(|said| said.starts_with(line));
        assert!(says("web.listen_address: [\"0.0.0.0:9435\"]"), "{name}: {said}");
        assert!(says("protect.oom_score_adj: keep"), "{name}: {said}");
        assert_eq!(says("kubernetes.enabled: off"), name == "minimal", "{name}: {said}");
        let sink = ["events", "alertmanager"].contains(&name.as_str());
        assert_eq!(says("sinks: []"), !sink, "{name}: {said}");
    }
}

/// The daemon may read the kinds that it asks for, and no other.
#[test]
fn the_role_is_what_the_daemon_asks_for() {
    let Some(kubectl) = tool::find("kubectl") else { return };
    let source = tool::file("monitor/src/containers/kubernetes/kinds.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let table = source.split_once("KINDS:").unwrap().1.split_once("];").unwrap().0;
    let rows =
        table.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.strip_suffix("\"),"));
    let asked: BTreeSet<(String, String)> = rows
        .map(|row| {
            let parts: Vec<&str> = row.split("\", \"").collect();
            (parts[0].to_owned(), parts[2].to_owned())
        })
        .collect();
    assert!(asked.contains(&(String::new(), "pods".to_owned())), "{asked:?}");
    for (name, rendered) in all(&kubectl) {
        let Ok(role) = rendered.one("ClusterRole") else { continue };
        let (mut readable, mut events) = (BTreeSet::new(), false);
        for rule in list(&role["rules"]) {
            if *rule
                == json!({"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]})
            {
                events = true;
                continue;
            }
            assert_eq!(rule["verbs"], json!(["get"]), "{name}");
            let group = rule["apiGroups"][0].as_str().unwrap();
            for resource in list(&rule["resources"]) {
                readable.insert((group.to_owned(), resource.as_str().unwrap().to_owned()));
            }
        }
        assert_eq!(readable, asked, "{name}");
        assert_eq!(events, name == "events", "{name}");
    }
}

/// What the operator is given is what a Prometheus without it reads.
#[test]
fn the_operators_rules_are_the_rules() {
    let directory = tool::file("deploy/prometheus");
    let entries = std::fs::read_dir(&directory).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_str().unwrap().ends_with(".rules.yaml"));
    files.sort();
    let (mut groups, mut text) = (Vec::new(), String::new());
    for file in &files {
        let rules = std::fs::read_to_string(file).unwrap();
        let read: Value = serde_saphyr::from_str(&rules).unwrap();
        groups.extend(list(&read["groups"]).to_vec());
        let body = rules.split_once("groups:\n").unwrap().1;
        for line in body.lines() {
            text += if line.is_empty() { "" } else { "  " };
            text += line;
            text += "\n";
        }
    }
    let file = tool::file("deploy/kubernetes/base/prometheusrule.yaml");
    let mut manifest = std::fs::read_to_string(&file).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let head = manifest.split_once("  groups:").unwrap().0;
        let body = if text.is_empty() { " []\n".to_owned() } else { format!("\n{text}") };
        manifest = format!("{head}  groups:{body}");
        std::fs::write(&file, &manifest).unwrap();
    }
    let manifest: Value = serde_saphyr::from_str(&manifest).unwrap();
    assert_eq!(manifest["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(manifest["spec"], json!({"groups": groups}), "UPDATE_GOLDEN=1 writes it anew");
}
