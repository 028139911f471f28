//! The container of the DaemonSet, as the manifest has it, from the image as it is released, by a real containerd: with its capabilities, mounts and
//! read-only root and nothing more it tells of a kill in a pod beside it, and the next one tells of what happened in between.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::asker::Asker;
use killwatch_tests::bpffs::BpfFs;
use killwatch_tests::cgroup::{Group, Hierarchy};
use killwatch_tests::containerd::{Containerd, Pod};
use killwatch_tests::cri::messages::{ContainerConfig, KeyValue};
use killwatch_tests::http::Client;
use killwatch_tests::manifest::{Node, Rendered, container, list};
use killwatch_tests::truth::{Truth, handles};
use killwatch_tests::wait::wait_until;
use serde_json::Value;
use tempfile::TempDir;

use crate::tool;

const NAME: &str = "node-of-the-manifest";
const LIMIT: u64 = 32 << 20;
const PATIENCE: Duration = Duration::from_secs(20);
const SIGUSR1: u32 = 10;
const HOG: &str =
    "trap 'go=1' USR1; while [ -z \"$go\" ]; do :; done; x=aaaaaaaa; while :; do x=$x$x; done";
/// Numbers of capabilities (include/uapi/linux/capability.h).
const NUMBERS: [(&str, u32); 4] =
    [("SYS_PTRACE", 19), ("SYS_RESOURCE", 24), ("PERFMON", 38), ("BPF", 39)];

/// A node: a containerd, directories where a node has its own, and the image.
struct Machine {
    containerd: Containerd,
    files: TempDir,
    bpf: BpfFs,
    address: String,
    config: ContainerConfig,
    client: Client,
}

impl Machine {
    fn new(kubectl: &Path, image: &Path) -> Result<Self> {
        let rendered = Rendered::of(kubectl, &tool::file("deploy/kubernetes/base"))?;
        let containerd = Containerd::start()?;
        containerd.import(image)?;
        let files = TempDir::with_prefix("killwatch-test-")?;
        std::fs::set_permissions(
            files.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        let bpf = BpfFs::mount()?;
        let own = |name: &str| -> Result<PathBuf> {
            let directory = files.path().join(name);
            std::fs::create_dir(&directory)?;
            Ok(directory)
        };
        let config = own("config")?;
        let pins = bpf.pins();
        let paths = [
            ("/sys/fs/cgroup", PathBuf::from("/sys/fs/cgroup")),
            ("/sys/fs/bpf", pins.parent().context("a directory")?.to_owned()),
            ("/run/containerd", containerd.directory().to_owned()),
            ("/var/lib/killwatch", own("state")?),
            ("/run/killwatch", own("run")?),
        ];
        let image = rendered.pod()?["containers"][0]["image"].as_str().context("no image")?;
        let image = format!("docker.io/library/{image}");
        let node = Node { name: NAME, image: &image, files: &config, paths: &paths };
        let mut config = container(&rendered, &node)?;
        // Its network is the host's here, where others may have the port; and the host is busy with other tests, so that names may come late. All else is the
        // manifest's.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = free.local_addr()?.to_string();
        for (key, value) in
            [("KILLWATCH_WEB_LISTEN_ADDRESS", &*address), ("KILLWATCH_CONTAINERS_DEADLINE", "5s")]
        {
            config.envs.push(KeyValue { key: key.into(), value: value.into() });
        }
        let client = Client::new(address.clone());
        Ok(Self { containerd, files, bpf, address, config, client })
    }

    /// Starts the daemon's container, and waits until it is ready: its id and its process.
    fn watch(&self, pod: &Pod, attempt: u32) -> Result<(String, u32)> {
        let mut config = self.config.clone();
        let metadata = config.metadata.as_mut().context("no metadata")?;
        metadata.attempt = attempt;
        let (id, pid) = self.containerd.run_given(pod, config)?;
        wait_until(PATIENCE, "the container is ready", || {
            let status = self.containerd.client().status(&id)?.status.context("no status")?;
            ensure!(status.state != killwatch_tests::cri::messages::EXITED, "it ended: {status:?}");
            Ok(self.client.get("/-/ready").is_ok_and(|(status, _)| status == 200).then_some(()))
        })
        .with_context(|| format!("at {}", self.address))?;
        Ok((id, pid))
    }

    /// Has the first process of a new container meet its limit; who it was, and its cgroup.
    fn kill(&self, pod: &Pod, name: &str) -> Result<(Truth, String)> {
        let command = ["/bin/busybox", "sh", "-c", HOG];
        let (container, init) = self.containerd.run(pod, name, 0, LIMIT, &command)?;
        wait_until(PATIENCE, "the shell to have its handler", || {
            Ok(handles(init.pid, SIGUSR1)?.then_some(()))
        })?;
        let sent = Command::new("kill").args(["-USR1", &init.pid.to_string()]).status()?;
        ensure!(sent.success(), "kill: {sent}");
        let ended = self.containerd.ended(&container)?;
        ensure!(ended.reason == "OOMKilled", "containerd says {ended:?}");
        Ok((init, container.cgroup))
    }

    /// The record of a process.
    fn record(&self, pid: u32) -> Result<Value> {
        let path = format!("/api/v1/deaths?pid={pid}");
        wait_until(PATIENCE, "the record is there", || {
            let (_, body) = self.client.get(&path)?;
            let answer: Value = serde_json::from_str(&body)?;
            let mut deaths = list(&answer["deaths"]).iter().cloned();
            Ok(deaths.next())
        })
    }
}

/// A line of `/proc/PID/status`.
fn status_of(pid: u32, key: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    Ok(line.with_context(|| format!("no {key}"))?.trim().to_owned())
}

/// What it has is what the manifest asks for.
fn holds_to_the_manifest(machine: &Machine, pid: u32) -> Result<()> {
    let linux = machine.config.linux.as_ref().context("no Linux")?;
    let security = linux.security_context.as_ref().context("no context")?;
    let wanted: BTreeSet<&str> = security
        .capabilities
        .iter()
        .flat_map(|set| &set.add_capabilities)
        .map(String::as_str)
        .collect();
    let known = NUMBERS.iter().filter(|(name, _)| wanted.contains(name));
    ensure!(known.clone().count() == wanted.len(), "numbers of {wanted:?}");
    let bits = known.fold(0_u64, |bits, (_, number)| bits | 1 << number);
    let of = |set: &str| -> Result<u64> { Ok(u64::from_str_radix(&status_of(pid, set)?, 16)?) };
    // What it started with; of that it has let go of what only the start needs.
    let bound = of("CapBnd:")?;
    ensure!(bound == bits, "CapBnd: {bound:x}, and the manifest asks for {bits:x}");
    for set in ["CapEff:", "CapPrm:"] {
        let has = of(set)?;
        ensure!(has != 0 && has & !bits == 0, "{set} {has:x}, and the manifest asks for {bits:x}");
    }
    ensure!(status_of(pid, "NoNewPrivs:")? == "1", "it may gain rights");
    let filtered = security.seccomp.as_ref().is_some_and(|profile| profile.profile_type == 0);
    ensure!(status_of(pid, "Seccomp:")? == if filtered { "2" } else { "0" }, "its system calls");
    ensure!(status_of(pid, "NSpid:")?.split_whitespace().count() == 1, "not in the host's pids");
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let options = |point: &str| {
        let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let line = lines.find(|fields| fields.get(4) == Some(&point));
        line.map(|fields| fields[5].to_owned()).with_context(|| format!("no mount {point}"))
    };
    let is_read_only = |point: &str| anyhow::Ok(options(point)?.split(',').any(|o| o == "ro"));
    ensure!(is_read_only("/")?, "its root can be written");
    for mount in &machine.config.mounts {
        let point = &mount.container_path;
        ensure!(is_read_only(point)? == mount.readonly, "{point}: {}", options(point)?);
    }
    let resources = linux.resources.as_ref().context("no resources")?;
    let group = Group::at(&Hierarchy::find()?, &Truth::of(pid)?.cgroup);
    let limit = group.limit()?.and_then(|limit| i64::try_from(limit).ok());
    ensure!(limit == Some(resources.memory_limit_in_bytes), "limited to {limit:?}");
    Ok(())
}

fn names(record: &Value, victim: &Truth, name: &str) -> Result<()> {
    let has = |pointer: &str, wanted: &str| {
        let found = record.pointer(pointer).and_then(Value::as_str);
        ensure!(found == Some(wanted), "{pointer} is {found:?}, not {wanted}: {record}");
        Ok(())
    };
    has("/cause", "oom_memcg")?;
    has("/node", NAME)?;
    has("/victim/comm", "busybox")?;
    has("/workload/pod", "worker-1")?;
    has("/workload/namespace", "shop")?;
    has("/workload/container", name)?;
    ensure!(record["victim"]["pid"] == victim.pid, "{record}");
    let words = list(&record["victim"]["cmdline"]);
    ensure!(words.iter().any(|word| word == HOG), "no command line: {record}");
    Ok(())
}

fn play(kubectl: &Path, image: &Path) -> Result<()> {
    let machine = Machine::new(kubectl, image)?;
    let context = machine.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let namespaces =
        context.and_then(|context| context.namespace_options.clone()).context("none")?;
    let own = machine.containerd.run_pod_in("killwatch-x7", "killwatch", namespaces)?;
    let (id, pid) = machine.watch(&own, 0)?;
    holds_to_the_manifest(&machine, pid)?;
    let pod = machine.containerd.run_pod("worker-1", "shop", &[], &[])?;
    let (victim, _) = machine.kill(&pod, "first")?;
    names(&machine.record(victim.pid)?, &victim, "first")?;
    // Over the socket that pods mount.
    let socket = machine.files.path().join("run/killwatch.sock");
    let told = Asker::root(&socket).deaths(&format!("pid={}", victim.pid))?;
    ensure!(told["state"] == "dead", "{told}");
    // What dies while it is gone is told by the next one: it was pinned, and the ledger is the node's.
    machine.containerd.client().stop(&id)?;
    ensure!(
        !killwatch_tests::bpffs::files(&machine.bpf.pins().with_file_name("killwatch")).is_empty()
    );
    let (missed, _) = machine.kill(&pod, "second")?;
    machine.watch(&own, 1)?;
    names(&machine.record(missed.pid)?, &missed, "second")?;
    names(&machine.record(victim.pid)?, &victim, "first")
}

#[test]
fn the_container_of_the_daemon_set_catches_a_kill_in_a_pod_beside_it() {
    let found = ["kubectl", "containerd", "runc", "busybox", "curl"].map(tool::find);
    let Some(image) = tool::made("KILLWATCH_IMAGE", "image", ".tar") else { return };
    let [Some(kubectl), Some(_), Some(_), Some(_), Some(_)] = found else { return };
    play(&kubectl, &image).unwrap_or_else(|error| panic!("{error:#}"));
}
