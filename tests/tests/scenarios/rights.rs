//! What the daemon may still do once it has started, and who may look.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{self, Daemon, Launch};
use killwatch_tests::play;
use killwatch_tests::stage::Stage;
use killwatch_tests::wait::wait_until;
use serde_json::Value;

use crate::aborts;

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(no_thread_has_more_than_it_needs),
    play!(deaths_are_kept_off_tcp_and_told_over_the_socket).needs(&[Need::NoVm]),
    play!(whoever_has_no_password_is_shown_nothing).needs(&[Need::NoVm]),
];

/// CAP_SYS_PTRACE and CAP_BPF (include/uapi/linux/capability.h).
const KEPT: u64 = 1 << 19 | 1 << 39;

/// Of each thread, while it watches and after a death.
fn no_thread_has_more_than_it_needs(stage: &mut Stage) -> Result<()> {
    let truth = aborts(stage)?;
    stage.daemon.death_of(&truth)?;
    let own = of(&fs::read_to_string("/proc/self/status")?, "CapPrm")?;
    let tasks = fs::read_dir(format!("/proc/{}/task", stage.daemon.pid()))?;
    let mut names = BTreeSet::new();
    for task in tasks {
        let task = task?.path();
        // It may have ended since.
        let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
        let name = status.lines().next().unwrap_or_default().replace("Name:\t", "");
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let found = of(&status, set)?;
            ensure!(found & !(KEPT & own) == 0, "{name} has {found:x} in {set}");
        }
        ensure!(of(&status, "CapInh")? == 0 && of(&status, "CapAmb")? == 0, "{status}");
        ensure!(
            status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"),
            "{status}"
        );
        names.insert(name);
    }
    ensure!(names.contains("killwatch-ring"), "the reader is not among {names:?}");
    ensure!(!names.contains("killwatch-open"), "whoever opens things has not ended");
    let status = stage.daemon.json("/api/v1/status")?;
    ensure!(status["rights"]["filtered"] == true, "{}", status["rights"]);
    Ok(())
}

fn of(status: &str, set: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
    Ok(u64::from_str_radix(line.context("no such set")?.trim(), 16)?)
}

fn deaths_are_kept_off_tcp_and_told_over_the_socket(stage: &mut Stage) -> Result<()> {
    let flags = vec!["--web.deaths=false".into()];
    let daemon = Daemon::start_as(Launch { flags, ..Launch::default() })?;
    let truth = aborts(stage)?;
    let over_socket = format!("unix:{}", daemon.socket().display());
    let told = wait_until(Duration::from_secs(10), "the death is told", || {
        let (code, out) =
            ask(&["why", &truth.pid.to_string(), "-o", "json", "--api", &over_socket])?;
        Ok((code == Some(0)).then_some(out))
    })?;
    let told: Value = serde_json::from_str(&told)?;
    ensure!(told["victim"]["pid"] == truth.pid && told["cause"] == "abort", "{told}");
    let id = told["id"].as_str().context("no id")?;
    for path in ["/api/v1/deaths", &format!("/api/v1/deaths/{id}"), &format!("/deaths/{id}")] {
        let (status, body) = daemon.get(path)?;
        ensure!(status == 403 && !body.contains(&truth.comm), "{path}: {status} {body}");
    }
    for path in ["/", "/host", "/metrics", "/-/healthy", "/-/ready", "/api/v1/status"] {
        let (status, body) = daemon.get(path)?;
        ensure!(status == 200 && !body.contains(id), "{path}: {status}");
    }
    let (code, said) = ask(&["why", id, "--api", &format!("http://{}", daemon.address())])?;
    ensure!(
        code == Some(69)
            && said.contains("deaths are not shown here")
            && said.contains("--api unix:"),
        "{code:?} {said}"
    );
    let (code, said) = ask(&["deaths", "-o", "json", "--api", &over_socket])?;
    ensure!(code == Some(0) && said.contains(id), "{code:?} {said}");
    Ok(())
}

/// The file is changed under a daemon that runs.
fn whoever_has_no_password_is_shown_nothing(stage: &mut Stage) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("web.yaml");
    fs::write(&file, "{}\n")?;
    let flags = vec!["--web.config.file".into(), file.clone().into()];
    let daemon = Daemon::start_as(Launch { flags, ..Launch::default() })?;
    let truth = aborts(stage)?;
    daemon.death_of(&truth)?;
    // bcrypt of `secret`, cost 4.
    fs::write(
        &file,
        "basic_auth_users: {ops: $2b$04$VLcR7n3gZujwS9bATypZ1eLbqmK25L1PYIVEiS9uUe6ygJ86HMsle}\n",
    )?;
    wait_until(Duration::from_secs(10), "a password is asked for", || {
        Ok((daemon.get("/-/healthy")?.0 == 401).then_some(()))
    })?;
    for path in ["/", "/api/v1/deaths", "/metrics", "/api/v1/status", "/host"] {
        let (status, body) = daemon.get(path)?;
        ensure!(status == 401 && !body.contains(&truth.comm), "{path}: {status} {body}");
    }
    let pid = truth.pid.to_string();
    let (code, said) = ask(&["why", &pid, "--api", &format!("http://{}", daemon.address())])?;
    ensure!(
        code == Some(69) && said.contains("401") && said.contains("--api unix:"),
        "{code:?} {said}"
    );
    let (code, said) =
        ask(&["why", &pid, "--api", &format!("unix:{}", daemon.socket().display())])?;
    ensure!(code == Some(0) && said.contains("aborted itself"), "{code:?} {said}");
    // A file that is no use leaves the door as it is.
    fs::write(&file, "basic_auth_user: {}\n")?;
    wait_until(Duration::from_secs(10), "the log says so", || {
        // Files are looked at when somebody asks.
        ensure!(daemon.get("/")?.0 == 401);
        let log = daemon.log()?;
        Ok((log.contains("web.config_file cannot be used")
            && log.contains("unknown field `basic_auth_user`"))
        .then_some(()))
    })
}

/// Exit code of the program, and what it said.
fn ask(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output =
        Command::new(daemon::binary()).args(arguments).output().context("run killwatch")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}
