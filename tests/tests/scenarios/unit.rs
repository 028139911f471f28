//! The unit as it is shipped, with what the package puts beside it, under a real systemd: in a virtual machine whose first process that is.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::bpffs::files;
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon;
use killwatch_tests::http::Client;
use killwatch_tests::metrics::sample;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::schema;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{LIMIT, at_the_gate};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(it_starts_within_its_bounds_and_tells_a_kill).needs(SYSTEMD),
    play!(what_happens_between_stop_and_start_is_told_once).needs(SYSTEMD),
    play!(nothing_that_the_daemon_does_is_refused).needs(SYSTEMD),
    play!(a_daemon_that_hangs_is_started_anew).needs(SYSTEMD),
];

const SYSTEMD: &[Need] = &[
    Need::Vm,
    Need::Variable("KILLWATCH_SYSTEMD", "systemd as the first process"),
    Need::Program("systemctl"),
];

const UNIT: &str = "killwatch.service";
/// What stands in the unit, in tmpfiles and in the configuration, and what is the default.
const PINS: &str = "/sys/fs/bpf/killwatch";
const ADDRESS: &str = "127.0.0.1:9435";
/// Where what a scenario adds to the unit is written.
const DROP_IN: &str = "/run/systemd/system/killwatch.service.d/scenario.conf";
const PATIENCE: Duration = Duration::from_secs(10);

fn it_starts_within_its_bounds_and_tells_a_kill(stage: &mut Stage) -> Result<()> {
    let service = Service::start("")?;
    let said = service.show()?;
    for (property, value) in [
        ("Type", "notify"),
        ("SubState", "running"),
        ("UnitFileState", "enabled"),
        ("NRestarts", "0"),
        ("OOMScoreAdjust", "-999"),
        ("MemoryMax", "167772160"),
        ("WatchdogUSec", "1min"),
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("DevicePolicy", "closed"),
    ] {
        ensure!(said.get(property).is_some_and(|said| said == value), "{property}: {said:#?}");
    }
    service.is_bounded()?;
    service.is_whole()?;
    ensure!(service.status()?["pins"]["directory"] == PINS, "{:#}", service.status()?["pins"]);
    ensure!(files(Path::new(PINS)).len() == 1, "{:?}", files(Path::new(PINS)));
    service.tells_a_kill(stage, "within")?;
    // The watchdog is told that it lives.
    let told = |said: &BTreeMap<String, String>| said.get("WatchdogTimestampMonotonic").cloned();
    let first = told(&said);
    wait_until(2 * PATIENCE, "the watchdog is told", || {
        Ok((told(&service.show()?) != first).then_some(()))
    })?;
    service.stop()
}

fn what_happens_between_stop_and_start_is_told_once(stage: &mut Stage) -> Result<()> {
    let service = Service::start("")?;
    let before = service.tells_a_kill(stage, "before")?;
    let sets = files(Path::new(PINS));
    service.stop()?;
    ensure!(files(Path::new(PINS)) == sets && sets.len() == 1, "{sets:?}");
    let meanwhile = aborts(stage, "meanwhile")?;
    let service = Service::start("")?;
    service.death_of(&meanwhile)?;
    service.has_taken_over()?;
    systemctl(&["restart", UNIT])?;
    service.has_taken_over()?;
    for truth in [&before, &meanwhile, &service.tells_a_kill(stage, "after")?] {
        service.death_of(truth)?;
    }
    service.is_whole()?;
    for reason in ["killed", "layout"] {
        ensure!(service.lost(reason)? == 0.0, "deaths are lost by {reason}");
    }
    service.stop()?;
    let output = Command::new("/usr/bin/killwatch").arg("detach").output().context("detach")?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(!Path::new(PINS).exists(), "{:?}", files(Path::new(PINS)));
    // The daemon could not make the directory anew, but systemd can.
    systemctl(&["start", UNIT])?;
    ensure!(service.status()?["pins"]["state"] == "pinned", "{:#}", service.status()?["pins"]);
    service.stop()
}

/// A call outside the unit's filter is an error by the unit, which the daemon may hide. Here it is the end of the daemon.
fn nothing_that_the_daemon_does_is_refused(stage: &mut Stage) -> Result<()> {
    let service = Service::start("SystemCallErrorNumber=kill\n")?;
    service.is_whole()?;
    service.tells_a_kill(stage, "unrefused")?;
    let answers = ["/metrics", "/", "/api/v1/status"].map(|page| service.client.get(page));
    for answer in answers {
        ensure!(answer?.0 == 200);
    }
    service.stop()
}

/// All of it hangs here, for nobody can have the pipeline alone do so.
fn a_daemon_that_hangs_is_started_anew(stage: &mut Stage) -> Result<()> {
    let service = Service::start("WatchdogSec=10\nTimeoutAbortSec=1\n")?;
    let truth = service.tells_a_kill(stage, "hangs")?;
    let first = service.pid()?;
    let hung = Truth::of(first)?;
    kill_process(pid(first)?, Signal::STOP).context("stop the daemon")?;
    let aborted = aborts(stage, "aborted")?;
    wait_until(2 * PATIENCE, "another daemon runs", || {
        let said = service.show()?;
        let anew = said.get("NRestarts").is_some_and(|count| count == "1");
        Ok((anew && said.get("ActiveState").is_some_and(|state| state == "active")).then_some(()))
    })?;
    ensure!(service.pid()? != first);
    service.has_taken_over()?;
    service.death_of(&truth)?;
    // systemd sends SIGCONT behind SIGABRT: until that ends them, threads may read the ring once more.
    wait_until(PATIENCE, "it is told or counted as lost", || {
        let told = service.find(&aborted)?.is_some();
        Ok((told || service.lost("killed")? >= 1.0).then_some(()))
    })?;
    let record = service.death_of(&hung)?;
    ensure!(record["cause"] == "killed" && record["killer"]["comm"] == "systemd", "{record:#}");
    service.stop()
}

/// The service, installed and started. Dropping it stops it and takes away what was added to it.
struct Service {
    client: Client,
}

impl Service {
    /// Does what docs/install.md says, and what the package does. `more` goes into the section `[Service]`.
    fn start(more: &str) -> Result<Self> {
        match fs::hard_link(daemon::binary(), "/usr/bin/killwatch") {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked.context("install the program"),
        }?;
        let drop_in = Path::new(DROP_IN);
        fs::create_dir_all(drop_in.parent().unwrap_or(drop_in)).context("make a directory")?;
        // There is no journal here.
        let log = "StandardOutput=append:/run/killwatch-unit.log\nStandardError=append:/run/killwatch-unit.log\n";
        fs::write(drop_in, format!("[Service]\n{log}{more}")).context("add to the unit")?;
        systemctl(&["daemon-reload"])?;
        let service = Self { client: Client::new(ADDRESS.to_owned()) };
        systemctl(&["enable", UNIT])?;
        systemctl(&["start", UNIT]).with_context(log_of_the_unit)?;
        ensure!(service.show()?["ActiveState"] == "active", "{:#?}", service.show()?);
        Ok(service)
    }

    /// What systemd says of it.
    fn show(&self) -> Result<BTreeMap<String, String>> {
        let text = systemctl(&["show", UNIT])?;
        let lines = text.lines().filter_map(|line| line.split_once('='));
        Ok(lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    fn pid(&self) -> Result<u32> {
        let said = self.show()?;
        said.get("MainPID").context("no MainPID")?.parse().context("a MainPID")
    }

    /// The kernel's word on what the unit asks for.
    fn is_bounded(&self) -> Result<()> {
        let pid = self.pid()?;
        let read = |name: &str| {
            let file = format!("/proc/{pid}/{name}");
            fs::read_to_string(&file).with_context(|| format!("read {file}"))
        };
        let status = read("status")?;
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
            ensure!(status.lines().any(|found| found == line), "{line}: {status}");
        }
        // Those of systemd beside the one of the daemon.
        let filters = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:\t"));
        ensure!(filters.context("no count")?.trim().parse::<u32>()? > 1, "{status}");
        ensure!(read("oom_score_adj")?.trim() == "-999");
        let mounts = read("mountinfo")?;
        // The one that lies on top is the last.
        let writable = |path: &str| -> Result<bool> {
            let mount = mounts.lines().filter_map(|line| {
                let mut words = line.split(' ').skip(4);
                let at = words.next()?;
                let inside = Path::new(path).starts_with(at);
                inside.then_some((at.len(), words.next()?.split(',').any(|word| word == "rw")))
            });
            mount.max_by_key(|(depth, _)| *depth).map(|(_, rw)| rw).context("no mount")
        };
        for (path, rw) in [
            ("/usr/bin/killwatch", false),
            ("/etc/killwatch", false),
            ("/proc/sys/kernel/core_pattern", false),
            ("/sys/kernel/mm", false),
            ("/sys/fs/cgroup/system.slice", false),
            ("/sys/fs/bpf", false),
            (PINS, true),
            ("/var/lib/killwatch", true),
            ("/run/killwatch", true),
        ] {
            ensure!(writable(path)? == rw, "{path} is writable: {}\n{mounts}", !rw);
        }
        Ok(())
    }

    /// Whether it sees all that it can.
    fn is_whole(&self) -> Result<()> {
        let (status, body) = self.client.get("/-/ready")?;
        ensure!(status == 200 && !body.contains("degraded"), "{status}: {body}");
        let said = self.status()?;
        ensure!(said["source"] == "bpf" && said["rights"]["filtered"] == true, "{said:#}");
        let log = log_of_the_unit();
        // A warning of what it watches is none of its own.
        let own = |line: &&str| !line.contains("memory is near its limit");
        for word in ["WARN", "ERROR", "not permitted"] {
            ensure!(!log.lines().filter(own).any(|line| line.contains(word)), "{log}");
        }
        Ok(())
    }

    fn status(&self) -> Result<Value> {
        let (status, body) = self.client.get("/api/v1/status")?;
        ensure!(status == 200, "{status}: {body}");
        serde_json::from_str(&body).context("a status")
    }

    /// A kill by a cgroup's limit, and the whole record of it.
    fn tells_a_kill(&self, stage: &Stage, name: &str) -> Result<Truth> {
        let group = stage.tree.limited(name, LIMIT)?;
        let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
        hog.go()?;
        hog.reap_killed_by(9)?;
        let node = self.status()?["node"].as_str().context("no node")?.to_owned();
        let expected = Expected::death(&truth, &node).oom(&truth, &group, LIMIT);
        expected.compare(&self.death_of(&truth)?)?;
        Ok(truth)
    }

    /// The one record of a death, as soon as it is there.
    fn death_of(&self, truth: &Truth) -> Result<Value> {
        wait_until(PATIENCE, &format!("a record of {}", truth.pid), || self.find(truth))
    }

    /// The same, if it is there.
    fn find(&self, truth: &Truth) -> Result<Option<Value>> {
        let (_, body) = self.client.get(&format!("/api/v1/deaths?pid={}", truth.pid))?;
        let answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        let records = answer["deaths"].as_array().cloned().unwrap_or_default();
        records.iter().try_for_each(schema::validate)?;
        let mut own: Vec<_> = records.into_iter().filter(|r| truth.is_told_in(r)).collect();
        let found = own.pop();
        ensure!(own.is_empty(), "told more than once: {own:#?} and {found:#?}");
        Ok(found)
    }

    /// How many deaths are counted as lost for this reason.
    fn lost(&self, reason: &str) -> Result<f64> {
        let page = self.client.get("/metrics")?.1;
        let lost = sample(&page, "killwatch_deaths_lost_total", &[("reason", reason)])?;
        lost.with_context(|| format!("no number of deaths lost by {reason}"))
    }

    /// It goes on with what the one before it left in the kernel.
    fn has_taken_over(&self) -> Result<()> {
        let pins = self.status()?["pins"].clone();
        ensure!(pins["state"] == "taken_over", "{pins:#}");
        Ok(())
    }

    fn stop(&self) -> Result<()> {
        systemctl(&["stop", UNIT])?;
        let said = self.show()?;
        for (property, value) in
            [("ActiveState", "inactive"), ("Result", "success"), ("ExecMainStatus", "0")]
        {
            ensure!(said.get(property).is_some_and(|said| said == value), "{property}: {said:#?}");
        }
        ensure!(!Path::new("/run/killwatch").exists(), "its socket is left");
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // All three fail only where a scenario has failed already.
        let _ = systemctl(&["stop", UNIT]);
        let _ = fs::remove_file(DROP_IN);
        let _ = fs::remove_file("/run/killwatch-unit.log");
    }
}

fn aborts(stage: &Stage, name: &str) -> Result<Truth> {
    let group = stage.tree.make(name)?;
    let (mut victim, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "abort"]))?;
    victim.go()?;
    victim.reap_killed_by(6)?;
    Ok(truth)
}

fn log_of_the_unit() -> String {
    fs::read_to_string("/run/killwatch-unit.log").unwrap_or_else(|error| format!("no log: {error}"))
}

fn systemctl(arguments: &[&str]) -> Result<String> {
    run("systemctl", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).context("its output is no text")
}

fn pid(number: u32) -> Result<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw).context("a pid")
}
