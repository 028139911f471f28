//! Environments that are hard to read: of processes that lived for milliseconds, unmapped, or too long.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::Group;
use killwatch_tests::corpus::Scenario;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::sender::Sender;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::{Truth, since_boot};
use killwatch_tests::victim::Victim;
use serde_json::Value;

use crate::{at_the_gate, number};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(killed_within_milliseconds_of_its_exec),
    play!(oom_killed_within_milliseconds_of_its_exec),
    play!(killed_in_the_middle_of_its_exec),
    play!(an_environment_that_was_given_back),
    play!(an_environment_longer_than_is_read),
];

/// What is called short here. A machine under load, or an emulated one, has no such lives to show: then the shortest is told.
const SHORT: Duration = Duration::from_millis(5);

/// Lives of one scenario.
const TURNS: u16 = 20;

/// So little that it is soon used up, in bytes.
const LITTLE: u64 = 8 << 20;

fn killed_within_milliseconds_of_its_exec(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let mut lives = Lives::begin(stage, &group, &["--kill", "said"], &["sleep"])?;
    for turn in 0..TURNS {
        let child = lives.next(turn)?;
        let expected =
            lives.expected(stage, &child).signal(9, "SIGKILL").killed_by(&lives.sender());
        let expected = expected.job_of_environ("JOB_ID", &turn.to_string());
        lives.note(&stage.holds(&child, &expected)?)?;
    }
    lives.tell("SIGKILL");
    Ok(())
}

/// The child alone is to be chosen: the parent is in the same cgroup.
fn oom_killed_within_milliseconds_of_its_exec(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LITTLE)?;
    let mut lives = Lives::begin(stage, &group, &[], &["--oom-score-adj", "1000", "hog"])?;
    for turn in 0..TURNS {
        let child = Truth { oom_score_adj: 1000, ..lives.next(turn)? };
        let expected = lives
            .expected(stage, &child)
            .oom(&child, &group, LITTLE)
            .like("/memory/anon_bytes", "a good part of the limit", |size| {
                size.as_u64().is_some_and(|size| (LITTLE / 4..=LITTLE).contains(&size))
            })
            .job_of_environ("JOB_ID", &turn.to_string());
        lives.note(&stage.holds(&child, &expected)?)?;
    }
    lives.tell("OOM kill");
    Ok(())
}

/// The signal waits until execve(2) is done, or cuts it short when nothing is left to go back to. Either the environment is on record, or
/// it is said that it is not.
fn killed_in_the_middle_of_its_exec(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let mut lives = Lives::begin(stage, &group, &["--kill", "at-once"], &["sleep"])?;
    let mut read = 0;
    for turn in 0..TURNS {
        let child = lives.next(turn)?;
        let record = stage.daemon.death_of(&child)?;
        let expected = lives
            .expected(stage, &child)
            .signal(9, "SIGKILL")
            .killed_by(&lives.sender())
            .wordless(&child);
        // On 7.x a parent's kill(2) right after the fork looks like that of the cgroup: the record says so, and who sent it is not held to.
        let inferred =
            record["killer"]["via"] == "cgroup_kill" && record["confidence"] == "inferred";
        if inferred {
            ensure!(
                record["killer"]["kind"] == "unknown"
                    && record["cause"] == "killed"
                    && record["victim"]["signal"] == 9
                    && record["inferred"][0]
                        == "that the cgroup was killed: its parent may have killed it as well, right after the fork",
                "{record:#}"
            );
        }
        if record.pointer("/victim/environ").is_some() {
            read += 1;
            let job = turn.to_string();
            let expected = expected.job_of_environ("JOB_ID", &job);
            if inferred {
                ensure!(record["job"]["id"] == job, "another job: {record:#}");
            } else {
                expected.compare(&record)?;
            }
        } else {
            if !inferred {
                expected.compare(&record)?;
            }
            ensure!(
                lacks_environ(&record, ""),
                "nothing says why there is no environment: {record:#}"
            );
        }
        lives.note(&record)?;
    }
    lives.tell("SIGKILL at once");
    println!(
        "environ: {read} of {TURNS} environments were read of processes killed in the middle of execve"
    );
    Ok(())
}

fn an_environment_that_was_given_back(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let padding = "x".repeat(8 << 10);
    // They lie in memory in the order of their names: the job's is in the middle of what is given back.
    let casting = stage.cast().within(&group).with_env("BEFORE", &padding);
    let casting = casting.with_env("JOB_ID", "4711").with_env("ZAFTER", &padding);
    let (mut victim, truth) = at_the_gate(&casting.args(["--gate", "forgetful"]))?;
    victim.go()?;
    victim.reap_killed_by(6)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(6, "SIGABRT")
        .by_itself("abort", "tgkill", &truth)
        .like("/missing", "that the environment was not in memory", |missing| {
            names_environ(missing, "not in memory")
        });
    stage.holds(&truth, &expected).map(drop)
}

/// What stands in the first part counts; what may stand behind it is not known.
fn an_environment_longer_than_is_read(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let casting = stage.cast().within(&group).with_env("JOB_ID", "4711");
    let casting = casting.with_env("PADDING", &"x".repeat(40 << 10)).with_env("RUN_ID", "behind");
    let (mut victim, truth) = at_the_gate(&casting.args(["--gate", "abort"]))?;
    victim.go()?;
    victim.reap_killed_by(6)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(6, "SIGABRT")
        .by_itself("abort", "tgkill", &truth)
        .job_of_environ("JOB_ID", "4711")
        .like("/missing", "that the environment was longer", |missing| {
            names_environ(missing, "32 KiB")
        });
    stage.holds(&truth, &expected).map(drop)
}

fn lacks_environ(record: &Value, why: &str) -> bool {
    record.get("missing").is_some_and(|missing| names_environ(missing, why))
}

fn names_environ(missing: &Value, why: &str) -> bool {
    missing.as_array().into_iter().flatten().any(|lack| {
        lack["field"] == "victim.environ"
            && lack["why"].as_str().is_some_and(|told| told.contains(why))
    })
}

/// Children of one victim, one after another.
struct Lives {
    parent: Victim,
    truth: Truth,
    cmdline: Vec<String>,
    shortest: Duration,
}

impl Lives {
    fn begin(stage: &Stage, group: &Group, options: &[&str], act: &[&str]) -> Result<Self> {
        let casting = stage.cast().within(group).args(["--gate"]);
        let casting = casting.args(["brief", &TURNS.to_string()]).args(options.to_vec());
        let (mut parent, truth) = at_the_gate(&casting.args(["--"]).args(act.to_vec()))?;
        parent.go()?;
        let program = std::fs::canonicalize(stage.victim()).context("find the victim")?;
        let mut cmdline = vec![program.display().to_string()];
        cmdline.extend(act.iter().map(|word| (*word).to_owned()));
        Ok(Self { parent, truth, cmdline, shortest: Duration::MAX })
    }

    /// Waits for the end of the child of this turn.
    fn next(&mut self, turn: u16) -> Result<Truth> {
        let ended = self.parent.hear("child")?;
        ensure!(ended["turn"] == turn, "{ended} is not of turn {turn}");
        Ok(self.truth.of_child(number(&ended, "child")?, self.cmdline.clone()))
    }

    fn sender(&self) -> Sender {
        Sender::from(&self.truth)
    }

    /// As of every death, but of the start no more is known than that it was after the parent's gate.
    fn expected(&self, stage: &Stage, child: &Truth) -> Expected {
        let (from, to) = (child.started, since_boot());
        Expected::death(child, stage.daemon.node())
            .like("/victim/start_ktime_ns", "a moment of the scenario", move |at| {
                at.as_u64().is_some_and(|at| (from..=to).contains(&Duration::from_nanos(at)))
            })
            .like("/victim/lifetime_seconds", "shorter than the scenario", move |lived| {
                lived
                    .as_f64()
                    .is_some_and(|lived| lived > 0.0 && lived <= (to - from).as_secs_f64())
            })
    }

    fn note(&mut self, record: &Value) -> Result<()> {
        let lived = record.pointer("/victim/lifetime_seconds").and_then(Value::as_f64);
        self.shortest =
            self.shortest.min(Duration::try_from_secs_f64(lived.context("no lifetime")?)?);
        Ok(())
    }

    fn tell(&self, how: &str) {
        let (lived, is) = (self.shortest, if self.shortest < SHORT { "" } else { "not " });
        println!(
            "environ: the shortest of {TURNS} lives until {how} was {lived:?}, {is}below {SHORT:?}"
        );
    }
}
