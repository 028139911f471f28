//! The unit, and the Debian package in a clean root of Debian: it installs and runs, an upgrade keeps what was there, a purge leaves nothing.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::bpffs::BpfFs;
use killwatch_tests::http::Client;
use killwatch_tests::manifest::list;
use killwatch_tests::wait::wait_until;
use serde_json::Value;
use tempfile::TempDir;

use crate::tool;

const PATIENCE: Duration = Duration::from_secs(20);
/// In `systemd-analyze security`, times ten: what the unit says of itself is below, and it may not grow.
const EXPOSURE: &str = "30";

#[test]
fn the_unit_is_hardened() {
    let Some(analyze) = tool::find("systemd-analyze") else { return };
    let unit = tool::file("deploy/systemd/killwatch.service");
    let threshold = format!("--threshold={EXPOSURE}");
    let unit = unit.to_str().unwrap();
    let said = tool::run(&analyze, ["security", "--offline=true", "--no-pager", &threshold, unit]);
    let exposure = said.split_once("Overall exposure level for killwatch.service: ").unwrap().1;
    let exposure = exposure.split(' ').next().unwrap();
    for document in ["deploy/systemd/killwatch.service", "docs/install.md"] {
        let text = std::fs::read_to_string(tool::file(document)).unwrap();
        assert!(text.contains(&format!("exposure {exposure}")), "{document}: it is {exposure}");
    }
}

/// As systemd reads it, the program and systemd's own units beside it.
#[test]
fn the_unit_is_well_formed() {
    let (Some(analyze), Some(package)) =
        (tool::find("systemd-analyze"), tool::made("KILLWATCH_DEB", "deb", ".deb"))
    else {
        return;
    };
    let root = TempDir::with_prefix("killwatch-test-").unwrap();
    let path = root.path().to_str().unwrap();
    tool::run(&tool::find("dpkg-deb").unwrap(), ["-x", package.to_str().unwrap(), path]);
    let units = root.path().join("lib/systemd/system");
    tool::run(&tool::find("cp").unwrap(), ["-R", "/lib/systemd/system/.", units.to_str().unwrap()]);
    let at = format!("--root={path}");
    let output = Command::new(&analyze)
        .args(["verify", "--man=no", &at, "killwatch.service"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// A root of Debian with nothing but what every one has.
struct Root {
    dir: TempDir,
    bpf: BpfFs,
}

impl Root {
    fn unpacked(archive: &Path) -> Result<Self> {
        let dir = TempDir::with_prefix("killwatch-test-")?;
        let mut tar = Command::new("tar");
        let status = tar.arg("-xf").arg(archive).arg("-C").arg(dir.path()).status()?;
        ensure!(status.success(), "tar: {status}");
        Ok(Self { dir, bpf: BpfFs::mount()? })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// A program in it. It sees the host's processes and cgroups, and a BPF file system of its own; its mounts go with it.
    fn command(&self, words: &[&str]) -> Command {
        let script = "mount --rbind /proc \"$0/proc\" && mount --rbind /sys \"$0/sys\" && mount --rbind /dev \"$0/dev\" && \
            mount --bind \"$1\" \"$0/sys/fs/bpf\" && root=$0 && shift && exec chroot \"$root\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        command.arg(self.dir.path()).arg(self.bpf.pins().parent().unwrap_or(Path::new("/")));
        command.args(words).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let Output { status, stdout, stderr } = self.command(words).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(status.success(), "{words:?}: {status}\n{}{}", text(&stdout), text(&stderr));
        Ok(text(&stdout))
    }

    /// All paths, but where dpkg keeps its own books.
    fn listed(&self) -> Result<BTreeSet<String>> {
        let mut find = Command::new("find");
        find.current_dir(self.dir.path()).args([".", "-xdev"]);
        let books = ["./var/lib/dpkg", "./var/cache", "./var/log", "./tmp"];
        let text = String::from_utf8(find.output()?.stdout)?;
        let own = |path: &&str| books.iter().all(|book| !path.starts_with(book));
        Ok(text.lines().filter(own).map(str::to_owned).collect())
    }
}

/// A daemon in a root. Dropping it kills it.
struct Daemon {
    child: Child,
    client: Client,
}

impl Daemon {
    /// Starts it by the command of the unit, and waits until it is ready.
    fn start(root: &Root) -> Result<Self> {
        let unit = std::fs::read_to_string(root.path("lib/systemd/system/killwatch.service"))?;
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="));
        let words: Vec<&str> = line.context("no ExecStart")?.split(' ').collect();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = free.local_addr()?.to_string();
        drop(free);
        let mut command = root.command(&words);
        command
            .env("KILLWATCH_WEB_LISTEN_ADDRESS", &address)
            .env("KILLWATCH_CONTAINERS_CRI", "off");
        command.stdout(std::process::Stdio::null()).process_group(0);
        let mut daemon = Self { child: command.spawn()?, client: Client::new(address) };
        wait_until(PATIENCE, "the daemon is ready", || {
            ensure!(daemon.child.try_wait()?.is_none(), "the daemon ended");
            Ok(daemon.client.get("/-/ready").is_ok_and(|(status, _)| status == 200).then_some(()))
        })?;
        Ok(daemon)
    }

    /// Has a process killed; the id of its record.
    fn sees_a_kill(&self) -> Result<String> {
        let mut victim = Command::new("sleep").arg("600").spawn()?;
        victim.kill()?;
        victim.wait()?;
        let path = format!("/api/v1/deaths?pid={}", victim.id());
        wait_until(PATIENCE, "the record is there", || {
            let answer: Value = serde_json::from_str(&self.client.get(&path)?.1)?;
            let death = list(&answer["deaths"]).first();
            Ok(death.and_then(|death| death["id"].as_str()).map(str::to_owned))
        })
    }

    fn stop(mut self) -> Result<()> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "kill: {status}");
        let ended = wait_until(PATIENCE, "the daemon ends", || Ok(self.child.try_wait()?))?;
        ensure!(ended.success(), "the daemon: {ended}");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when it is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The package again, a version later, with another configuration file.
fn later(package: &Path, root: &Root) -> Result<()> {
    let files = TempDir::with_prefix("killwatch-test-")?;
    let run = |arguments: &[&std::ffi::OsStr]| -> Result<()> {
        let output = Command::new("dpkg-deb").args(arguments).output()?;
        ensure!(output.status.success(), "dpkg-deb: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let directory = files.path().join("package");
    run(&["-R".as_ref(), package.as_os_str(), directory.as_os_str()])?;
    let control = directory.join("DEBIAN/control");
    let text = std::fs::read_to_string(&control)?;
    let version = text.lines().find(|line| line.starts_with("Version: ")).context("no version")?;
    std::fs::write(&control, text.replace(version, &format!("{version}+later")))?;
    let conffile = directory.join("etc/killwatch/killwatch.yaml");
    let text = std::fs::read_to_string(&conffile)?;
    std::fs::write(&conffile, format!("# Of a later version.\n{text}"))?;
    let target = root.path("later.deb");
    run(&["--root-owner-group".as_ref(), "-b".as_ref(), directory.as_os_str(), target.as_os_str()])
}

fn life_of_a_package(package: &Path, archive: &Path) -> Result<()> {
    let root = Root::unpacked(archive)?;
    let before = root.listed()?;
    std::fs::copy(package, root.path("killwatch.deb"))?;

    root.run(&["dpkg", "-i", "/killwatch.deb"])?;
    ensure!(root.run(&["killwatch", "--version"])?.starts_with("killwatch "));
    let config = "/etc/killwatch/killwatch.yaml";
    ensure!(root.run(&["killwatch", "check-config", config])?.starts_with("ok\n"));
    let wanted = "etc/systemd/system/multi-user.target.wants/killwatch.service";
    ensure!(root.path(wanted).is_symlink(), "it is not enabled");
    root.run(&[
        "bash",
        "-c",
        ". /usr/share/bash-completion/completions/killwatch && complete -p killwatch",
    ])?;

    let daemon = Daemon::start(&root)?;
    let id = daemon.sees_a_kill()?;
    daemon.stop()?;
    let kept = || root.run(&["killwatch", "deaths", "--output", "json"]);
    ensure!(kept()?.contains(&id), "the ledger lacks {id}");

    let own = "log: {level: warn}\n";
    std::fs::write(root.path("etc/killwatch/killwatch.yaml"), own)?;
    later(package, &root)?;
    root.run(&["dpkg", "--force-confdef", "--force-confold", "-i", "/later.deb"])?;
    ensure!(root.run(&["dpkg-query", "-W", "killwatch"])?.contains("+later"));
    ensure!(std::fs::read_to_string(root.path("etc/killwatch/killwatch.yaml"))? == own);
    ensure!(kept()?.contains(&id), "the upgrade lost the ledger");
    Daemon::start(&root)?.stop()?;

    root.run(&["dpkg", "-r", "killwatch"])?;
    ensure!(!root.path("usr/bin/killwatch").exists());
    ensure!(root.path("var/lib/killwatch/ledger.redb").exists(), "a removal is no purge");
    ensure!(killwatch_tests::bpffs::files(&root.bpf.pins().with_file_name("killwatch")).is_empty());
    root.run(&["dpkg", "-P", "killwatch"])?;
    for file in ["killwatch.deb", "later.deb"] {
        std::fs::remove_file(root.path(file))?;
    }
    let after = root.listed()?;
    let left: Vec<_> = after.symmetric_difference(&before).collect();
    ensure!(left.is_empty(), "not as it was: {left:?}");
    ensure!(!root.path("var/log/killwatch").exists());
    Ok(())
}

#[test]
fn the_package_is_installed_upgraded_removed_and_purged() {
    let found = ["dpkg-deb", "unshare", "chroot", "tar"].map(tool::find);
    let (Some(package), Some(archive)) = (
        tool::made("KILLWATCH_DEB", "deb", ".deb"),
        tool::made("KILLWATCH_DEBIAN_ROOT", "deb", "-root.tar"),
    ) else {
        return;
    };
    if found.iter().any(Option::is_none) {
        return;
    }
    life_of_a_package(&package, &archive).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn the_package_is_lintian_clean() {
    let (Some(lintian), Some(package)) =
        (tool::find("lintian"), tool::made("KILLWATCH_DEB", "deb", ".deb"))
    else {
        return;
    };
    let said = tool::run(
        &lintian,
        ["--fail-on=error,warning", "--tag-display-limit=0", package.to_str().unwrap()],
    );
    assert!(!said.contains("E: ") && !said.contains("W: "), "{said}");
}

/// Each manual page is one that `man` has nothing to say against.
#[test]
fn the_manual_can_be_read() {
    let (Some(man), Some(package)) =
        (tool::find("man"), tool::made("KILLWATCH_DEB", "deb", ".deb"))
    else {
        return;
    };
    let files = TempDir::with_prefix("killwatch-test-").unwrap();
    tool::run(
        &tool::find("dpkg-deb").unwrap(),
        ["-x".as_ref(), package.as_os_str(), files.path().as_os_str()],
    );
    let pages = std::fs::read_dir(files.path().join("usr/share/man/man1")).unwrap();
    let mut names = BTreeSet::new();
    for page in pages {
        let page = page.unwrap();
        let mut command = Command::new(&man);
        command.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "100").args(["--warnings", "-l"]);
        let output = command.arg(page.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{page:?}: {said}");
        names.insert(page.file_name().into_string().unwrap());
    }
    for name in ["killwatch.1.gz", "killwatch-run.1.gz", "killwatch-why.1.gz"] {
        assert!(names.contains(name), "{names:?}");
    }
}
