//! A containerd of one's own, and pods in it as a kubelet makes them. All of its files are in one directory, all cgroups of its pods below one.
//!
//! What it takes here and on other machines: pods in the network of the host, since there are no network plugins, and
//! `restrict_oom_score_adj`, since not every root may lower that.

mod config;
mod given;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub use self::config::IMAGE;
use crate::corpus::find_program;
use crate::cri::{Client, messages as cri};
use crate::truth::Truth;
use crate::wait::wait_until;

/// From the start until it answers.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// From SIGTERM until its end.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// From the start of a container until its command runs.
const RUNS_WITHIN: Duration = Duration::from_secs(10);
/// Of its log, these last lines are shown with a failure.
const LOG_LINES: usize = 40;

/// The node's network, and processes of each container's own.
const NAMESPACES: cri::NamespaceOption = cri::NamespaceOption { network: 2, pid: 1 };

/// A containerd. Dropping it ends it, and its pods, and takes away all that they left.
#[derive(Debug)]
pub struct Containerd {
    child: Option<Child>,
    client: Client,
    /// The cgroup that those of all pods are in, from the root of each hierarchy.
    cgroup: String,
    dir: TempDir,
}

/// A pod, with a sandbox that runs.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// The id of its sandbox.
    pub sandbox_id: String,
    config: cri::PodSandboxConfig,
}

/// A container of a pod.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How often it was started anew.
    pub attempt: u32,
    /// Its cgroup, from the root of each hierarchy.
    pub cgroup: String,
}

impl Containerd {
    /// Starts one.
    ///
    /// # Errors
    /// When it is not installed or does not answer in time: with the end of its log.
    pub fn start() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = TempDir::with_prefix("killwatch-test-").context("make a directory")?;
        std::fs::write(dir.path().join("config.toml"), config::text(dir.path()))
            .context("write config.toml")?;
        let mut containerd = Self {
            child: None,
            client: Client::new(&dir.path().join("containerd.sock"))?,
            cgroup: format!("/killwatch-pods-{}-{number}", std::process::id()),
            dir,
        };
        containerd.begin()?;
        config::import_image(containerd.dir.path(), &containerd.socket())?;
        Ok(containerd)
    }

    /// The socket that it is asked at.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("containerd.sock")
    }

    /// To ask it.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Its directory, which all its files are in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// The cgroup that those of all pods are in, from the root of each hierarchy.
    #[must_use]
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Starts it where it was stopped.
    ///
    /// # Errors
    /// As [`Containerd::start`], and when it runs.
    pub fn begin(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("containerd runs");
        }
        let program = find_program("containerd").context("containerd is not installed")?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .context("open containerd's log")?;
        let child = Command::new(program)
            .arg("--config")
            .arg(self.dir.path().join("config.toml"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .context("start containerd")?;
        let child = self.child.insert(child);
        let client = &self.client;
        let answers = wait_until(STARTS_WITHIN, "containerd answers", || {
            if let Some(status) = child.try_wait().context("look after containerd")? {
                bail!("containerd ended: {status}");
            }
            // No answer is how it begins.
            Ok(client.version().is_ok().then_some(()))
        });
        answers.with_context(|| format!("containerd's log:\n{}", self.log()))
    }

    /// Stops it. Its pods run on.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let stopped = signal(&child, Signal::TERM).and_then(|()| {
            wait_until(STOPS_WITHIN, "containerd stops", || {
                child.try_wait().context("wait for containerd")
            })
        });
        if stopped.is_err() {
            // Both fail only when it is gone, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        stopped.map(drop)
    }

    /// Stops it and starts it again. Its pods run on.
    ///
    /// # Errors
    /// As [`Containerd::stop`] and [`Containerd::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.begin()
    }

    /// Has it stand still: its socket takes connections, and nobody answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn wedge(&self) -> Result<()> {
        signal(self.child.as_ref().context("containerd does not run")?, Signal::STOP)
    }

    /// Has it go on after [`Containerd::wedge`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn unwedge(&self) -> Result<()> {
        signal(self.child.as_ref().context("containerd does not run")?, Signal::CONT)
    }

    /// Runs a pod's sandbox, labelled and annotated as by the kubelet, with these labels and annotations of its own.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn run_pod(
        &self,
        name: &str,
        namespace: &str,
        labels: &[(&str, &str)],
        annotations: &[(&str, &str)],
    ) -> Result<Pod> {
        self.run_sandbox(name, namespace, labels, annotations, NAMESPACES)
    }

    /// The same with these namespaces.
    fn run_sandbox(
        &self,
        name: &str,
        namespace: &str,
        labels: &[(&str, &str)],
        annotations: &[(&str, &str)],
        namespaces: cri::NamespaceOption,
    ) -> Result<Pod> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let uid = format!(
            "{:08x}-0000-4000-8000-{:012x}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let own = of_kubelet(name, namespace, &uid);
        let seen = [
            ("kubernetes.io/config.seen", "2026-01-01T00:00:00Z"),
            ("kubernetes.io/config.source", "api"),
        ];
        let config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.to_owned(),
                uid: uid.clone(),
                namespace: namespace.to_owned(),
                attempt: 0,
            }),
            log_directory: String::new(),
            labels: own.into_iter().chain(owned(labels)).collect(),
            annotations: owned(&seen).chain(owned(annotations)).collect(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/kubepods/burstable/pod{uid}", self.cgroup),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces),
                }),
            }),
        };
        let sandbox_id = self.client.run_pod(&config).map_err(|error| self.failed(error))?;
        Ok(Pod { name: name.to_owned(), namespace: namespace.to_owned(), uid, sandbox_id, config })
    }

    /// Runs a container in a pod, labelled as by the kubelet. `limit` in bytes. Returns when its first process runs the command.
    ///
    /// # Errors
    /// When containerd refuses, or the command does not run in time.
    pub fn run(
        &self,
        pod: &Pod,
        name: &str,
        attempt: u32,
        limit: u64,
        command: &[&str],
    ) -> Result<(Container, Truth)> {
        let limit = i64::try_from(limit).context("a limit")?;
        let name_label = ("io.kubernetes.container.name".to_owned(), name.to_owned());
        let restarts = ("io.kubernetes.container.restartCount".to_owned(), attempt.to_string());
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt }),
            image: Some(cri::ImageSpec { image: IMAGE.to_owned() }),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            labels: of_kubelet(&pod.name, &pod.namespace, &pod.uid)
                .into_iter()
                .chain([name_label])
                .collect(),
            annotations: HashMap::from([restarts]),
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(cri::LinuxContainerResources { memory_limit_in_bytes: limit }),
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(NAMESPACES),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        };
        let id = self
            .client
            .create(&pod.sandbox_id, config, &pod.config)
            .and_then(|id| self.client.start(&id).map(|()| id))
            .map_err(|error| self.failed(error))?;
        let parent = pod.config.linux.as_ref().map_or("", |linux| &linux.cgroup_parent);
        let container =
            Container { cgroup: format!("{parent}/{id}"), id, name: name.to_owned(), attempt };
        let pid = self.first_process(&container.id)?;
        // Until then it is runc, which becomes the command a little later.
        let init = wait_until(RUNS_WITHIN, "the container runs its command", || {
            let init = Truth::of(pid)?;
            Ok((init.cmdline == command).then_some(init))
        })?;
        Ok((container, init))
    }

    /// Waits until containerd knows that a container has ended; how.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn ended(&self, container: &Container) -> Result<cri::ContainerStatus> {
        wait_until(RUNS_WITHIN, "containerd knows of the container's end", || {
            let status = self.client.status(&container.id)?.status.context("no status")?;
            Ok((status.state == cri::EXITED).then_some(status))
        })
    }

    /// Takes a pod away, with its containers.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn remove_pod(&self, sandbox_id: &str) -> Result<()> {
        self.client.stop_pod(sandbox_id)?;
        self.client.remove_pod(sandbox_id)
    }

    /// The pid of a container's first process, which only the verbose status tells.
    fn first_process(&self, id: &str) -> Result<u32> {
        let status = self.client.status(id)?;
        let info = status.info.get("info").context("no verbose status")?;
        let info: Value = serde_json::from_str(info).context("the verbose status")?;
        let pid = info.get("pid").and_then(Value::as_u64).context("no pid in the status")?;
        u32::try_from(pid).context("a pid")
    }

    fn failed(&self, error: anyhow::Error) -> anyhow::Error {
        error.context(format!("containerd's log:\n{}", self.log()))
    }

    /// The end of its log.
    fn log(&self) -> String {
        let text = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn end(&mut self) -> Result<()> {
        if self.child.is_some() {
            // It may stand still.
            self.unwedge()?;
            let removed = self.client.pods().and_then(|pods| {
                pods.iter().try_for_each(|sandbox_id| self.remove_pod(sandbox_id))
            });
            if let Err(error) = removed {
                eprintln!("killwatch-tests: pods have to be cleared away by force: {error:#}");
            }
        }
        self.stop()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let ended = self.end();
        let cleared = crate::leftovers::clear(self.dir.path(), &self.cgroup);
        if let Err(error) = ended.and(cleared) {
            eprintln!(
                "killwatch-tests: something of {} is left behind: {error:#}",
                self.dir.path().display()
            );
        }
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("containerd's pid")?;
    kill_process(pid, signal).context("send containerd a signal")
}

/// The labels that the kubelet gives to sandboxes and containers alike.
fn of_kubelet(pod: &str, namespace: &str, uid: &str) -> Vec<(String, String)> {
    owned(&[
        ("io.kubernetes.pod.name", pod),
        ("io.kubernetes.pod.namespace", namespace),
        ("io.kubernetes.pod.uid", uid),
    ])
    .collect()
}

fn owned<'a>(pairs: &[(&'a str, &'a str)]) -> impl Iterator<Item = (String, String)> + use<'a> {
    let pairs: Vec<_> = pairs.to_vec();
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()))
}
