//! The daemon's Unix socket: job tags, what happened to whom, and who may see what.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::asker::Asker;
use killwatch_tests::corpus::{Need, Scenario, not_applicable};
use killwatch_tests::daemon::binary;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::Casting;
use killwatch_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::{LIMIT, at_the_gate, kill_by_shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(what_a_worker_said_of_itself_is_its_job).needs(CURL),
    play!(a_tag_can_be_taken_back_and_a_stranger_can_give_none).needs(CURL),
    play!(a_tool_dies_for_the_job_of_who_started_it).needs(CURL),
    play!(a_user_tags_its_children_and_nobody_else).needs(PYTHON),
    play!(who_asks_before_the_record_is_made_is_answered_by_it).needs(CURL),
    play!(alive_dead_and_unknown_are_told_apart).needs(CURL),
    play!(a_user_sees_what_is_its_own_and_no_more).needs(CURL),
    play!(a_container_sees_itself_and_no_other_of_its_uid).needs(CURL),
    play!(pids_are_those_of_who_asks).needs(NAMESPACES),
    play!(a_supervisor_hears_of_its_own_children).needs(CURL),
    play!(what_is_too_much_is_refused_in_words).needs(PYTHON),
    play!(a_pid_given_anew_inherits_no_tag).needs(PYTHON),
];

const CURL: &[Need] = &[Need::Program("curl"), Need::Program("setpriv")];
const PYTHON: &[Need] =
    &[Need::Program("curl"), Need::Program("setpriv"), Need::Program("python3")];
const NAMESPACES: &[Need] =
    &[Need::Program("curl"), Need::Program("setpriv"), Need::Program("unshare")];

/// Two users, neither of them root.
const SOMEONE: u32 = 65533;
const ANOTHER: u32 = 65532;

/// The module that docs/examples has for Python.
const MODULE: &str = include_str!("../../../docs/examples/python/killwatch.py");

fn root(stage: &Stage) -> Asker {
    Asker::root(&stage.daemon.socket())
}

/// A victim that `killwatch tag` has become, waiting at its gate.
fn tagged(stage: &Stage, tags: &[&str]) -> Casting {
    let socket = stage.daemon.socket();
    Casting::new(binary())
        .args([std::ffi::OsString::from("tag"), "--api.socket".into(), socket.into()])
        .args(tags.to_vec())
        .args([std::ffi::OsString::from("--"), stage.victim().into()])
}

fn what_a_worker_said_of_itself_is_its_job(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    let casting = tagged(stage, &["job_id=4711", "attempt=2", "snapshot_id=s-9"])
        .within(&group)
        .with_env("JOB_ID", "not this one")
        .args(["--gate", "hog"]);
    let (mut hog, truth) = at_the_gate(&casting)?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, LIMIT)
        .is("/victim/environ", json!({ "JOB_ID": "not this one" }))
        .is("/tags", json!({ "job_id": "4711", "attempt": "2", "snapshot_id": "s-9" }))
        .is("/job/id", "4711")
        .is("/job/attempt", "2")
        .is("/job/sources", json!({ "id": "tag:job_id", "attempt": "tag:attempt" }));
    let record = stage.holds(&truth, &expected)?;
    for query in ["job=4711".to_owned(), format!("pid={}&start={}", truth.pid, start(&truth)?)] {
        let answer = root(stage).deaths(&query)?;
        ensure!(answer["state"] == "dead", "{query}: {answer}");
        let told = answer["deaths"].as_array().context("no deaths")?;
        ensure!(told.iter().any(|death| death["id"] == record["id"]), "{query}: {answer}");
    }
    Ok(())
}

fn a_tag_can_be_taken_back_and_a_stranger_can_give_none(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) = at_the_gate(&sleeper(stage, "worker")?)?;
    let (path, tags) = (format!("/v1/tags/{}", truth.pid), Some(r#"{"job_id":"1"}"#));
    let stranger = Asker::user(&stage.daemon.socket(), SOMEONE);
    let (status, said) = stranger.ask("PUT", &path, tags)?;
    ensure!(status == 403 && said["error"].is_string(), "{status}: {said}");
    let (status, said) = root(stage).ask("PUT", &path, tags)?;
    ensure!(status == 200 && said["tags"] == json!({ "job_id": "1" }), "{status}: {said}");
    let (status, said) = root(stage).ask("GET", &path, None)?;
    ensure!(status == 200 && said["tags"]["job_id"] == "1", "{status}: {said}");
    let (status, said) = root(stage).ask("DELETE", &path, None)?;
    ensure!(status / 100 == 2, "{status}: {said}");
    let sender = kill_by_shell("9", truth.pid, 0)?;
    victim.reap_killed_by(9)?;
    // No claim about tags: there must be none.
    let expected = Expected::death(&truth, stage.daemon.node()).signal(9, "SIGKILL");
    stage.holds(&truth, &expected.killed_by(&sender)).map(drop)
}

fn a_tool_dies_for_the_job_of_who_started_it(stage: &mut Stage) -> Result<()> {
    let casting = tagged(stage, &["job_id=77"])
        .within(&stage.tree.make("worker")?)
        .args(["fork", "--", "sleep"]);
    let (mut worker, _) = at_the_gate(&casting)?;
    let tool = Truth::of(crate::number(&worker.hear("child")?, "child")?)?;
    let sender = kill_by_shell("9", tool.pid, 0)?;
    let expected = Expected::death(&tool, stage.daemon.node())
        .signal(9, "SIGKILL")
        .killed_by(&sender)
        .is("/tags", json!({ "job_id": "77" }))
        .is("/job/id", "77")
        .is("/job/sources", json!({ "id": "tag:job_id" }));
    stage.holds(&tool, &expected)?;
    worker.release();
    worker.reap_exited(0)
}

/// By the module of docs/examples, as a user without any right.
fn a_user_tags_its_children_and_nobody_else(stage: &mut Stage) -> Result<()> {
    let (mut other, truth) = at_the_gate(&sleeper(stage, "other")?)?;
    let script = format!(
        "{MODULE}\nimport subprocess\nchild = subprocess.Popen(['sleep', '100'])\n\
        print(_ask('PUT', f'/v1/tags/{{child.pid}}', {{'job_id': 'a'}})[0])\n\
        print(_ask('PUT', '/v1/tags/self', {{'job_id': 'b'}})[0])\n\
        print(_ask('PUT', '/v1/tags/{}', {{'job_id': 'c'}})[0])\n\
        print(_ask('GET', f'/v1/tags/{{child.pid}}')[1]['tags']['job_id'])\n\
        start = start_of(child.pid)\nchild.kill()\nchild.wait()\nrecord = death(child.pid, start)\n\
        print(record['job']['id'], record['victim']['uid'], record['cause'])\n",
        truth.pid
    );
    let said = python(stage, SOMEONE, &script)?;
    let expected = format!("200\n200\n403\na\na {SOMEONE} killed\n");
    ensure!(said == expected, "{said:?} is not {expected:?}");
    other.release();
    other.reap_exited(0)
}

fn who_asks_before_the_record_is_made_is_answered_by_it(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) = at_the_gate(&sleeper(stage, "worker")?)?;
    let query = format!("pid={}&start={}&wait=20s", truth.pid, start(&truth)?);
    let asker = root(stage);
    let waits = std::thread::spawn(move || asker.deaths(&query));
    kill_by_shell("9", truth.pid, 0)?;
    victim.reap_killed_by(9)?;
    let answer = waits.join().map_err(|_| anyhow::anyhow!("the asker panicked"))??;
    ensure!(
        answer["state"] == "dead" && answer["deaths"][0]["victim"]["pid"] == truth.pid,
        "{answer}"
    );
    Ok(())
}

fn alive_dead_and_unknown_are_told_apart(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) = at_the_gate(&sleeper(stage, "worker")?)?;
    let query = format!("pid={}&start={}", truth.pid, start(&truth)?);
    let state = |query: &str| Ok::<_, anyhow::Error>(root(stage).deaths(query)?["state"].clone());
    ensure!(state(&query)? == "alive");
    ensure!(
        state(&format!("pid={}&start=1", truth.pid))? == "unknown",
        "another one with that pid"
    );
    kill_by_shell("9", truth.pid, 0)?;
    victim.reap_killed_by(9)?;
    ensure!(state(&format!("{query}&wait=10s"))? == "dead");
    // One that ends in peace has no record.
    let (mut peaceful, truth) = at_the_gate(&sleeper(stage, "peaceful")?)?;
    let query = format!("pid={}&start={}", truth.pid, start(&truth)?);
    peaceful.release();
    peaceful.reap_exited(0)?;
    ensure!(state(&query)? == "unknown");
    ensure!(state("job=no-such-job")? == "unknown");
    Ok(())
}

fn a_user_sees_what_is_its_own_and_no_more(stage: &mut Stage) -> Result<()> {
    let (own, other) = (stage.tree.make("own")?, stage.tree.make("other")?);
    let below = stage.tree.make("own/below")?;
    // Root's deaths in both; and one of the user's own elsewhere.
    let in_own = killed(stage, &stage.cast().within(&below).args(["sleep"]))?;
    let in_other = killed(stage, &stage.cast().within(&other).args(["sleep"]))?;
    let uid = SOMEONE.to_string();
    let of_user = killed(stage, &stage.cast().within(&other).args(["--uid", &uid, "sleep"]))?;
    let sees = |asker: &Asker, pid: u32| {
        Ok::<_, anyhow::Error>(asker.deaths(&format!("pid={pid}"))?["state"] == "dead")
    };
    let someone = Asker::user(&stage.daemon.socket(), SOMEONE).within(&own);
    let another = Asker::user(&stage.daemon.socket(), ANOTHER).within(&other);
    for (asker, pid, expected) in [
        (&someone, in_own, true),
        (&someone, in_other, false),
        (&someone, of_user, true),
        (&another, in_own, false),
        (&another, in_other, true),
        (&another, of_user, true),
        (&root(stage), in_own, true),
        (&root(stage), of_user, true),
    ] {
        ensure!(sees(asker, pid)? == expected, "{asker:?} and {pid}: not {expected}");
    }
    Ok(())
}

/// Users of two containers have the same number and nothing else in common.
fn a_container_sees_itself_and_no_other_of_its_uid(stage: &mut Stage) -> Result<()> {
    let id = |digit: &str| format!("docker/{}", digit.repeat(64));
    let (own, other) = (stage.tree.make(&id("1"))?, stage.tree.make(&id("2"))?);
    let uid = SOMEONE.to_string();
    let inside = killed(stage, &stage.cast().within(&own).args(["--uid", &uid, "sleep"]))?;
    let outside = killed(stage, &stage.cast().within(&other).args(["--uid", &uid, "sleep"]))?;
    let asker = Asker::user(&stage.daemon.socket(), SOMEONE).within(&own);
    ensure!(asker.deaths(&format!("pid={inside}"))?["state"] == "dead");
    ensure!(asker.deaths(&format!("pid={outside}"))?["state"] == "unknown");
    Ok(())
}

/// In a pid namespace of its own a child tags itself, and who killed it asks by the number that it knows.
fn pids_are_those_of_who_asks(stage: &mut Stage) -> Result<()> {
    let ask = format!("curl --silent --unix-socket '{}'", stage.daemon.socket().display());
    let script = format!(
        "'{}' tag --api.socket '{}' job_id=ns -- sleep 1000 & p=$!; until [ \"$(cat /proc/$p/comm)\" = sleep ]; do :; done; \
        kill -9 $p; wait $p; {ask} \"http://k/v1/deaths?pid=$p&wait=10s\"; echo; echo \"{{\\\"asked\\\":$p}}\"",
        binary().display(),
        stage.daemon.socket().display()
    );
    let enter =
        "echo $$ >\"$0/cgroup.procs\" && exec unshare --pid --fork --mount-proc sh -c \"$1\"";
    let output = Command::new("sh")
        .args(["-c", enter])
        .arg(stage.tree.make("namespace")?.dir())
        .arg(&script)
        .stderr(Stdio::inherit())
        .output()
        .context("run unshare")?;
    let text = String::from_utf8(output.stdout).context("what it said")?;
    let said: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [answer, asked] = said.as_slice() else { anyhow::bail!("it said {text:?}") };
    let death = &answer["deaths"][0];
    ensure!(answer["state"] == "dead", "{text}");
    ensure!(
        death["victim"]["ns_pid"] == asked["asked"] && death["victim"]["comm"] == "sleep",
        "{death}"
    );
    ensure!(death["victim"]["pid"] != asked["asked"] && death["job"]["id"] == "ns", "{death}");
    Ok(())
}

fn a_supervisor_hears_of_its_own_children(stage: &mut Stage) -> Result<()> {
    let (own, other) = (stage.tree.make("own")?, stage.tree.make("other")?);
    let dir = tempfile::TempDir::with_prefix("killwatch-test-").context("make a directory")?;
    let file = dir.path().join("stream");
    let asker = Asker::user(&stage.daemon.socket(), SOMEONE).within(&own);
    let mut curl = asker.stream("", &file)?;
    let heard = || std::fs::read_to_string(&file).context("read the stream");
    let told = (|| {
        wait_until(Duration::from_secs(10), "the stream to begin", || {
            Ok(heard()?.contains("id: ").then_some(()))
        })?;
        let unseen = killed(stage, &stage.cast().within(&other).args(["sleep"]))?;
        let seen = killed(stage, &stage.cast().within(&own).args(["sleep"]))?;
        let text = wait_until(Duration::from_secs(10), "the death in the stream", || {
            Ok(Some(heard()?).filter(|text| text.contains(&format!("\"pid\":{seen},"))))
        })?;
        ensure!(!text.contains(&format!("\"pid\":{unseen},")), "another's death: {text}");
        ensure!(text.contains("event: death\n"), "{text}");
        Ok(())
    })();
    curl.kill().context("end curl")?;
    curl.wait().context("wait for curl")?;
    told
}

fn what_is_too_much_is_refused_in_words(stage: &mut Stage) -> Result<()> {
    let long = "x".repeat(300);
    let many: Vec<String> = (0..17).map(|n| format!("\"k{n}\":\"v\"")).collect();
    for (method, path, body, expected) in [
        ("PUT", "/v1/tags/self", "{".to_owned(), 400),
        ("PUT", "/v1/tags/self", "[]".to_owned(), 400),
        ("PUT", "/v1/tags/self", r#"{"a":1}"#.to_owned(), 400),
        ("PUT", "/v1/tags/self", r#"{"a":"b\u0000"}"#.to_owned(), 400),
        ("PUT", "/v1/tags/self", r#"{"a b":"c"}"#.to_owned(), 400),
        ("PUT", "/v1/tags/self", format!("{{\"a\":\"{long}\"}}"), 400),
        ("PUT", "/v1/tags/self", format!("{{{}}}", many.join(",")), 400),
        ("PUT", "/v1/tags/self", format!("{{\"a\":\"{}\"}}", "x".repeat(20_000)), 413),
        ("PUT", "/v1/tags/0", r#"{"a":"b"}"#.to_owned(), 400),
        ("PUT", "/v1/tags/4194305", r#"{"a":"b"}"#.to_owned(), 404),
        ("POST", "/v1/tags/self", r#"{"a":"b"}"#.to_owned(), 405),
        ("GET", "/v1/deaths", String::new(), 400),
        ("GET", "/v1/deaths?pid=1&job=2", String::new(), 400),
        ("GET", "/v1/deaths?pid=1&wait=31s", String::new(), 400),
        ("GET", "/v1/deaths?pid=-1", String::new(), 400),
        ("GET", "/v1/deaths/stream?cursor=nonsense", String::new(), 400),
        ("GET", "/v2", String::new(), 404),
    ] {
        let (status, said) = root(stage).ask(
            method,
            path,
            Some(&body).filter(|b| !b.is_empty()).map(String::as_str),
        )?;
        ensure!(status == expected, "{method} {path} {body:.40}: {status}, not {expected}: {said}");
        ensure!(said["error"].as_str().is_some_and(|error| !error.is_empty()), "{said}");
    }
    let script = format!(
        "{MODULE}\nconnection, codes = _Connection(), set()\nfor _ in range(600):\n    \
        connection.request('PUT', '/v1/tags/self', '{{\"a\":\"b\"}}')\n    answer = connection.getresponse()\n    answer.read()\n    \
        codes.add((answer.status, answer.getheader('retry-after') is not None))\nprint(sorted(codes))\n"
    );
    let said = python(stage, ANOTHER, &script)?;
    ensure!(said == "[(200, False), (429, True)]\n", "{said}");
    Ok(())
}

/// The kernel is asked to hand out the number of a tagged process once more, at once.
fn a_pid_given_anew_inherits_no_tag(stage: &mut Stage) -> Result<()> {
    const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
    if std::fs::File::options().write(true).open(LAST_PID).is_err() {
        return Err(not_applicable(format!("{LAST_PID} cannot be written")));
    }
    let script = format!(
        "{MODULE}\nimport signal, time\n\
        def child():\n    pid = os.fork()\n    if pid == 0:\n        signal.pause()\n    return pid\n\
        def end(pid):\n    os.kill(pid, signal.SIGKILL)\n    os.waitpid(pid, 0)\n\
        first = child()\nprint(_ask('PUT', f'/v1/tags/{{first}}', {{'job_id': 'first'}})[0])\n\
        before = start_of(first)\nend(first)\n\
        # A start is told apart by 1/100 s.\n\
        tick = time.clock_gettime(time.CLOCK_BOOTTIME) + 0.02\nwhile time.clock_gettime(time.CLOCK_BOOTTIME) < tick:\n    pass\n\
        for _ in range(500):\n    open('{LAST_PID}', 'w').write(str(first - 1))\n    second = child()\n    \
        if second == first:\n        break\n    end(second)\n\
        if second != first:\n    print('no luck')\n    raise SystemExit\n\
        after = start_of(second)\nprint(_ask('GET', f'/v1/tags/{{second}}')[0])\nend(second)\n\
        for start in (before, after):\n    record = death(first, start)\n    print(record['victim']['pid'] == first, record.get('tags'))\n"
    );
    let said = python(stage, 0, &script)?;
    if said.contains("no luck") {
        return Err(not_applicable("others take the number first"));
    }
    let expected = "200\n404\nTrue {'job_id': 'first'}\nTrue None\n";
    ensure!(said == expected, "{said:?} is not {expected:?}");
    Ok(())
}

/// A victim that sleeps at its gate, in a cgroup of its own.
fn sleeper(stage: &Stage, group: &str) -> Result<Casting> {
    Ok(stage.cast().within(&stage.tree.make(group)?).args(["sleep"]))
}

/// Runs a victim, kills it and waits until its record is there; its pid.
fn killed(stage: &Stage, casting: &Casting) -> Result<u32> {
    let (mut victim, truth) = at_the_gate(casting)?;
    kill_by_shell("9", truth.pid, 0)?;
    victim.reap_killed_by(9)?;
    stage.daemon.death_of(&truth)?;
    Ok(truth.pid)
}

/// When a process was started, as field 22 of its /proc/PID/stat has it.
fn start(truth: &Truth) -> Result<u64> {
    let tick = Duration::from_secs(1).as_nanos()
        / u128::from(rustix::param::clock_ticks_per_second().max(1));
    u64::try_from(truth.started.as_nanos() / tick).context("a start")
}

/// Runs a script as a user; what it printed.
fn python(stage: &Stage, uid: u32, script: &str) -> Result<String> {
    use std::os::unix::process::CommandExt as _;
    let output = Command::new("/usr/bin/env")
        .args(["python3", "-c", script])
        .env("KILLWATCH_API_SOCKET", stage.daemon.socket())
        .uid(uid)
        .gid(uid)
        .stderr(Stdio::inherit())
        .output()
        .context("run python3")?;
    ensure!(output.status.success(), "python3: {}", output.status);
    String::from_utf8(output.stdout).context("what it printed")
}
