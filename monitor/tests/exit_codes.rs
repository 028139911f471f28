//! What the binary says to a wrong command line, and the code it ends with.

use std::process::Command;

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn killwatch(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_killwatch"));
    let output = command.env_clear().args(args).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"][..], &["--version"], &["run", "--help"], &["help", "why"]] {
        let (code, out, err) = killwatch(args, &[]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}");
        assert!(out.contains("killwatch"));
    }
}

#[test]
fn no_subcommand_is_help_and_wrong_usage() {
    let (code, out, err) = killwatch(&[], &[]);
    assert_eq!((code, out.as_str()), (Some(64), ""));
    assert!(err.contains("Usage: killwatch <COMMAND>"), "{err}");
}

#[test]
fn a_refused_flag_names_key_value_and_what_is_allowed() {
    let (code, _, err) = killwatch(&["run", "--queue.records", "0"], &[]);
    assert_eq!(code, Some(64));
    for part in ["--queue.records", "'0'", "from 64 to 1000000"] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert!(!err.contains("KILLWATCH_"), "{err}");
}

#[test]
fn a_refused_variable_is_named() {
    let (code, _, err) = killwatch(&["run"], &[("KILLWATCH_SHUTDOWN_DEADLINE", "forever")]);
    assert_eq!(code, Some(64));
    for part in ["KILLWATCH_SHUTDOWN_DEADLINE", "'forever'", "from 100ms to 5m"] {
        assert!(err.contains(part), "{part}: {err}");
    }
}

#[test]
fn a_refused_file_names_file_key_value_place_and_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("killwatch.yaml");
    std::fs::write(&path, "node: a\nledger:\n  max_deaths: -1\n").unwrap();
    let path = path.to_str().unwrap();
    for args in [&["check-config", path][..], &["run", "--config.file", path]] {
        let (code, _, err) = killwatch(args, &[]);
        assert_eq!(code, Some(64));
        for part in [path, "ledger.max_deaths", "\"-1\"", "line 3, column 15", "from 1 to 1000000"]
        {
            assert!(err.contains(part), "{part}: {err}");
        }
    }
}

#[test]
fn a_good_file_is_ok_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("killwatch.yaml");
    std::fs::write(&path, "node: node-7\n").unwrap();
    let (code, out, err) = killwatch(&["check-config", path.to_str().unwrap()], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("ok\n") && out.contains("\nnode: node-7\n"), "{out}");
}

#[test]
fn a_refused_rule_of_jobs_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("killwatch.yaml");
    std::fs::write(&path, "jobs: {rules: [{rule: farm, path: '/(?<job>x)', id: [{path: job}]}]}\n")
        .unwrap();
    let path = path.to_str().unwrap();
    let explain = ["check-config", path, "--explain", "/x"];
    for args in [&["check-config", path][..], &["run", "--config.file", path], &explain] {
        let (code, out, err) = killwatch(args, &[]);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{err}");
        for part in [path, "jobs.rules[0].path (rule \"farm\")", "the group `job` is not known"] {
            assert!(err.contains(part), "{part}: {err}");
        }
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn a_path_is_explained_without_a_file() {
    let path = "/system.slice/slurmstepd.scope/job_12/step_0";
    let said = [
        "--label",
        "a=b=c",
        "--environ",
        "SLURM_JOB_NAME=train",
        "--tag",
        "x=",
        "--annotation",
        "y=z",
    ];
    let (code, out, err) =
        killwatch(&[&["check-config", "--explain", path], &said[..]].concat(), &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for part in [
        "unit: slurmstepd.scope\n",
        "job, by the rule slurm_v2:\n",
        "  name=train (environ:SLURM_JOB_NAME)\n",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    for wrong in [
        &["check-config"][..],
        &["check-config", "--tag", "a=b"],
        &["check-config", "--explain", "/", "--tag", "ab"],
    ] {
        assert_eq!(killwatch(wrong, &[]).0, Some(64), "{wrong:?}");
    }
}

#[test]
fn no_daemon_is_not_the_same_as_nothing_known() {
    // Port 1 of this host: nobody listens there.
    let (code, _, err) = killwatch(&["why", "1", "--api", "http://127.0.0.1:1"], &[]);
    assert_eq!(code, Some(69), "{err}");
    assert!(err.contains("http://127.0.0.1:1 does not answer"), "{err}");
}

#[test]
fn a_file_that_says_who_may_look_and_is_no_use_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (path, web) = (dir.path().join("killwatch.yaml"), dir.path().join("web.yaml"));
    std::fs::write(&web, "basic_auth_users: {ops: secret}\n").unwrap();
    std::fs::write(&path, format!("web: {{config_file: {}}}\n", web.display())).unwrap();
    let (path, web) = (path.to_str().unwrap(), web.to_str().unwrap());
    for args in [
        &["check-config", path][..],
        &["run", "--config.file", path],
        &["run", "--web.config.file", web],
    ] {
        let (code, out, err) = killwatch(args, &[]);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{err}");
        for part in ["web.config_file: ", web, "basic_auth_users.ops: is no bcrypt hash"] {
            assert!(err.contains(part), "{part}: {err}");
        }
        assert!(!err.contains("secret"), "{err}");
    }
}
