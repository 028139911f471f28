//! A Podman or Docker of one's own, asked by the API that both speak. All of its files are in one directory, all cgroups of its containers below one.
//!
//! What it takes here and on other machines: containers in the network of the host, files copied (vfs) rather than stacked, runc, since crun does not
//! run where both kinds of cgroups are mounted, and limits of files and processes that no root is refused.

mod api;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::api::Api;
use crate::cgroup::{Group, Hierarchy};
use crate::corpus::find_program;
use crate::truth::Truth;
use crate::wait::wait_until;

/// The image that there is: a static busybox, and nothing else.
pub const IMAGE: &str = "localhost/killwatch/busybox:1";

/// From the start until it answers.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// From SIGTERM until its end.
const STOPS_WITHIN: Duration = Duration::from_secs(15);
/// From the start of a container until its command runs.
const RUNS_WITHIN: Duration = Duration::from_secs(15);
/// Of its log, these last lines are shown with a failure.
const LOG_LINES: usize = 40;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Podman, with its service.
    Podman,
    /// Docker, with a containerd of its own.
    Docker,
}

impl Kind {
    /// Its name, as records have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
    }
}

/// An engine. Dropping it ends it, and its containers, and takes away all that they left.
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
    /// In the order in which they were started; the last one is asked.
    services: Vec<Child>,
    api: Api,
    /// The cgroup that those of all containers are in, from the root of each hierarchy.
    cgroup: String,
    dir: TempDir,
}

/// A container that is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a [(&'a str, &'a str)],
    /// Limit of its memory, in bytes.
    pub limit: u64,
    /// Its command.
    pub command: &'a [&'a str],
    /// Whether it is removed as soon as it ends.
    pub remove: bool,
    /// Whether it is started anew as soon as it ends.
    pub restart: bool,
}

/// A container.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: String,
    command: Vec<String>,
}

impl Engine {
    /// Starts one.
    ///
    /// # Errors
    /// When a program is not installed, or it does not answer in time: with the end of its log.
    pub fn start(kind: Kind) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = TempDir::with_prefix("killwatch-test-").context("make a directory")?;
        let socket = dir.path().join("engine.sock");
        let cgroup = format!("/killwatch-{}-{}-{number}", kind.name(), std::process::id());
        let mut engine = Self { kind, services: Vec::new(), api: Api::new(socket), cgroup, dir };
        match kind {
            Kind::Podman => engine.start_podman()?,
            Kind::Docker => engine.start_docker()?,
        }
        engine.load_image()?;
        Ok(engine)
    }

    /// The socket that it is asked at.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    /// Has it stand still: its socket takes connections, and nobody answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn wedge(&self) -> Result<()> {
        signal(self.services.last().context("no service")?, Signal::STOP)
    }

    /// Has it go on after [`Engine::wedge`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn unwedge(&self) -> Result<()> {
        signal(self.services.last().context("no service")?, Signal::CONT)
    }

    /// Runs a container.
    ///
    /// # Errors
    /// When the engine refuses: with the end of its log.
    pub fn run(&self, order: Order<'_>) -> Result<Container> {
        let labels: serde_json::Map<String, Value> =
            order.labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let limit = |name: &str| json!({"Name": name, "Soft": 1024, "Hard": 1024});
        let body = json!({
            "Image": IMAGE,
            "Cmd": order.command,
            "Labels": labels,
            "HostConfig": {
                "NetworkMode": "host",
                "Memory": order.limit,
                "CgroupParent": self.cgroup,
                "AutoRemove": order.remove,
                "RestartPolicy": {"Name": if order.restart { "always" } else { "no" }},
                "LogConfig": {"Type": if self.kind == Kind::Podman { "k8s-file" } else { "none" }},
                "Ulimits": [limit("nofile"), limit("nproc")],
            },
        });
        let made = self.api.post(&format!("/containers/create?name={}", order.name), &body);
        let id = made.and_then(|made| {
            let id = made.get("Id").and_then(Value::as_str).context("no id")?.to_owned();
            self.api.act(&format!("/containers/{id}/start"))?;
            Ok(id)
        });
        let id = id.with_context(|| format!("{}'s log:\n{}", self.kind.name(), self.log()))?;
        Ok(Container { id, command: order.command.iter().map(|&word| word.to_owned()).collect() })
    }

    /// Waits for the first process of a container to run its command. `before` is one that it had, and that is not meant.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn init(&self, container: &Container, before: Option<&Truth>) -> Result<Truth> {
        wait_until(RUNS_WITHIN, "the container runs its command", || {
            let state = self.inspect(container)?;
            let pid = state.pointer("/State/Pid").and_then(Value::as_u64).context("no pid")?;
            let pid = u32::try_from(pid).context("a pid")?;
            if pid == 0 || before.is_some_and(|before| before.pid == pid) {
                return Ok(None);
            }
            // Until then it is runc, which becomes the command a little later; or it is gone already, and the next one is on its way.
            Ok(Truth::of(pid).ok().filter(|init| init.cmdline == container.command))
        })
    }

    /// How often it says a container was started anew.
    ///
    /// # Errors
    /// When it does not say.
    pub fn restarts(&self, container: &Container) -> Result<u64> {
        self.inspect(container)?.get("RestartCount").and_then(Value::as_u64).context("no count")
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn rename(&self, container: &Container, name: &str) -> Result<()> {
        let path = format!("/containers/{}/rename?name={name}", container.id);
        self.api.act(&path).map(drop)
    }

    /// Waits until a container is gone.
    ///
    /// # Errors
    /// When it is there still.
    pub fn removed(&self, container: &Container) -> Result<()> {
        wait_until(RUNS_WITHIN, "the container is removed", || {
            let gone =
                self.inspect(container).err().filter(|error| error.to_string().contains("404"));
            Ok(gone.map(drop))
        })
    }

    /// The cgroup of a container, where memory is accounted.
    ///
    /// # Errors
    /// When there is no such hierarchy.
    pub fn group(&self, init: &Truth) -> Result<Group> {
        Ok(Group::at(&Hierarchy::find()?, &init.cgroup))
    }

    fn inspect(&self, container: &Container) -> Result<Value> {
        self.api.get(&format!("/containers/{}/json", container.id))
    }

    fn start_podman(&mut self) -> Result<()> {
        let runc = find_program("runc").context("runc is not installed")?;
        let at = |name: &str| self.dir.path().join(name);
        let mut command = command("podman")?;
        command
            .arg("--root")
            .arg(at("root"))
            .arg("--runroot")
            .arg(at("run"))
            .arg("--tmpdir")
            .arg(at("tmp"))
            .arg("--runtime")
            .arg(runc)
            .args(["--cgroup-manager=cgroupfs", "--storage-driver=vfs", "--events-backend=file"])
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", self.socket().display()));
        self.serve(command)?;
        self.answers("/version")
    }

    fn start_docker(&mut self) -> Result<()> {
        let at = |name: &str| self.dir.path().join(name);
        let containerd = at("containerd.sock");
        // No plugin for Kubernetes, which wants more of the machine.
        let settings = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {containerd:?}\n",
            at("containerd"),
            at("state"),
        );
        std::fs::write(at("containerd.toml"), settings).context("write containerd.toml")?;
        std::fs::write(at("docker.json"), "{}").context("write docker.json")?;
        let mut first = command("containerd")?;
        first.arg("--config").arg(at("containerd.toml"));
        let mut second = command("dockerd")?;
        second
            .arg("--config-file")
            .arg(at("docker.json"))
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("docker.pid"))
            .arg("--containerd")
            .arg(&containerd)
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .args(["--storage-driver=vfs", "--exec-opt=native.cgroupdriver=cgroupfs"]);
        self.serve(first)?;
        wait_until(STARTS_WITHIN, "containerd's socket", || Ok(containerd.exists().then_some(())))
            .with_context(|| format!("containerd's log:\n{}", self.log()))?;
        self.serve(second)?;
        self.answers("/version")
    }

    fn serve(&mut self, mut command: Command) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .context("open the log")?;
        let child = command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        self.services.push(child);
        Ok(())
    }

    fn answers(&mut self, path: &str) -> Result<()> {
        let (api, services) = (&self.api, &mut self.services);
        let answers = wait_until(STARTS_WITHIN, "the engine answers", || {
            for service in &mut *services {
                if let Some(status) = service.try_wait().context("look after the engine")? {
                    bail!("it ended: {status}");
                }
            }
            // No answer is how it begins.
            Ok(api.get(path).is_ok().then_some(()))
        });
        answers.with_context(|| format!("{}'s log:\n{}", self.kind.name(), self.log()))
    }

    fn load_image(&self) -> Result<()> {
        let bin = self.dir.path().join("image/bin");
        let busybox = find_program("busybox").context("busybox is not installed")?;
        std::fs::create_dir_all(&bin).context("make the image")?;
        std::fs::copy(busybox, bin.join("busybox")).context("copy busybox")?;
        let tar = Command::new("tar")
            .args(["-C", "image", "-c", "."])
            .current_dir(self.dir.path())
            .output()
            .context("start tar")?;
        if !tar.status.success() {
            bail!("tar: {}", String::from_utf8_lossy(&tar.stderr));
        }
        let (repository, tag) = IMAGE.rsplit_once(':').context("a tag")?;
        let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}");
        self.api.ask("POST", &path, "application/x-tar", &tar.stdout)?;
        if self.kind == Kind::Podman {
            // It passes over the name that it is given with the image.
            let images = self.api.get("/images/json")?;
            let id = images.pointer("/0/Id").and_then(Value::as_str).context("no image")?;
            self.api.act(&format!("/images/{id}/tag?repo={repository}&tag={tag}"))?;
        }
        Ok(())
    }

    /// The end of its log.
    fn log(&self) -> String {
        let text = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn remove_all(&self) -> Result<()> {
        // It may stand still.
        self.unwedge()?;
        let containers = self.api.get("/containers/json?all=true")?;
        let ids = containers.as_array().into_iter().flatten().filter_map(|one| one["Id"].as_str());
        ids.map(|id| format!("/containers/{id}?force=true")).try_for_each(|path| {
            match self.api.delete(&path) {
                // One that removes itself may be faster.
                Err(error) if error.to_string().contains("404") => Ok(()),
                removed => removed.map(drop),
            }
        })
    }

    fn end(&mut self) -> Result<()> {
        if let Err(error) = self.remove_all() {
            eprintln!("killwatch-tests: containers have to be cleared away by force: {error:#}");
        }
        let mut ended = Ok(());
        for mut service in self.services.drain(..).rev() {
            let stopped = signal(&service, Signal::TERM).and_then(|()| {
                wait_until(STOPS_WITHIN, "the engine stops", || {
                    service.try_wait().context("wait for the engine")
                })
            });
            if stopped.is_err() {
                // Both fail only when it is gone, which is what is wanted.
                let _ = service.kill();
                let _ = service.wait();
            }
            ended = ended.and(stopped.map(drop));
        }
        ended
    }
}

impl Drop for Engine {
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

fn command(program: &str) -> Result<Command> {
    let program = find_program(program).with_context(|| format!("{program} is not installed"))?;
    Ok(Command::new(program))
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
    kill_process(pid, signal).context("send the engine a signal")
}
