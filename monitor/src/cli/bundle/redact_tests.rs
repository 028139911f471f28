//! What is replaced, and what is left.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn of(args: &[&str]) -> Vec<String> {
    command(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>()).0
}

#[test]
fn every_expression_can_be_read() {
    for regex in [&PAIR, &HEADER, &FLAG, &USERINFO, &GO_DSN, &FORMS] {
        assert!(regex.is_some());
    }
}

#[test]
fn secrets_go() {
    for (args, said) in [
        (&["x", "--password=hunter2"][..], &["x", "--password=[redacted]"][..]),
        (&["x", "--password", "hunter2", "-v"], &["x", "--password", "[redacted]", "-v"]),
        (&["x", "--db-password=a b,c&d"], &["x", "--db-password=[redacted]"]),
        (&["x", "token=abc"], &["x", "token=[redacted]"]),
        (&["env", "API_KEY=abc", "run"], &["env", "API_KEY=[redacted]", "run"]),
        (&["x", "--apikey", "abc"], &["x", "--apikey", "[redacted]"]),
        (&["x", "-clientSecret=abc"], &["x", "-clientSecret=[redacted]"]),
        (&["x", "key=abc"], &["x", "key=[redacted]"]),
        (
            &["x", "postgres://bob:hunter2@db/x?sslmode=off"],
            &["x", "postgres://[redacted]@db/x?sslmode=off"],
        ),
        (&["x", "redis://:p@ss/w@h:6379"], &["x", "redis://[redacted]@h:6379"]),
        (&["x", "https://token@git.example/r"], &["x", "https://[redacted]@git.example/r"]),
        (
            &["x", "https://h/x?a=1&sig=abc&token=d"],
            &["x", "https://h/x?a=1&sig=[redacted]&token=[redacted]"],
        ),
        (
            &["x", "Server=db;User Id=u;Password=hunter2;Pooling=true"],
            &["x", "Server=db;User Id=u;Password=[redacted];Pooling=true"],
        ),
        (&["x", "bob:hunter2@tcp(db:3306)/x"], &["x", "[redacted]@tcp(db:3306)/x"]),
        (
            &["curl", "-H", "Authorization: Bearer abc.def"],
            &["curl", "-H", "Authorization: [redacted]"],
        ),
        (&["curl", "-u", "bob:hunter2", "h"], &["curl", "-u", "[redacted]", "h"]),
        (&["/usr/bin/mysqldump", "-phunter2", "db"], &["/usr/bin/mysqldump", "-p[redacted]", "db"]),
        (&["sudo", "sshpass", "-p", "x", "ssh"], &["sudo", "sshpass", "-p", "[redacted]", "ssh"]),
        (&["redis-cli", "-a", "hunter2"], &["redis-cli", "-a", "[redacted]"]),
        (
            &["sh", "-c", "TOKEN='a b' run --secret \"c d\" --port 80"],
            &["sh", "-c", "TOKEN=[redacted] run --secret [redacted] --port 80"],
        ),
        (
            &["x", "{\"password\": \"hunter2\", \"port\": 80}"],
            &["x", "{\"password\": [redacted], \"port\": 80}"],
        ),
        (&["env", "DB_PASSWORD=a b", "run"], &["env", "DB_PASSWORD=[redacted]", "run"]),
        (&["x", "ghp_0123456789abcdefABCDEF"], &["x", "[redacted]"]),
        (&["x", "AKIAIOSFODNN7EXAMPLE"], &["x", "[redacted]"]),
        (&["x", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"], &["x", "[redacted]"]),
    ] {
        assert_eq!(of(args), said, "{args:?}");
    }
}

#[test]
fn what_is_no_secret_stays() {
    for args in [
        &["java", "-Xmx512m", "-jar", "app.jar"][..],
        &["node", "--max-old-space-size=4096", "server.js"],
        &["x", "--monkey=1", "--keyboard", "de", "--max_passes=3", "--tokenizer=bert"],
        &["x", "--author=me", "-p", "8080", "http://host:80/path?page=2"],
        &["nginx: worker process"],
        &["sleep", "10"],
        &["x", ""],
        &[],
    ] {
        assert_eq!(of(args), args, "{args:?}");
    }
}

#[test]
fn in_a_record_command_lines_are_read_as_such_and_all_else_by_its_form() {
    let mut record = json!({
        "victim": {"cmdline": ["x", "--token", "abc"], "comm": "x"},
        "workload": {"annotations": {"repo": "https://u:p@h/r", "key=abc": "key=abc"}},
        "n": 1,
    });
    value(&mut record);
    assert_eq!(
        record,
        json!({
            "victim": {"cmdline": ["x", "--token", "[redacted]"], "comm": "x"},
            "workload": {"annotations": {"repo": "https://[redacted]@h/r", "key=abc": "key=abc"}},
            "n": 1,
        })
    );
}

proptest! {
    #[test]
    fn no_secret_comes_through(
        secret in "[A-Za-z0-9!%/+]{8,24}",
        key in "(db[-_])?(password|passwd|token|secret|api[-_]?key|passphrase|credentials)",
        form in 0usize..9,
    ) {
        // What is not the secret must not hold it by chance.
        let secret = format!("Zq{secret}");
        let args: Vec<String> = match form {
            0 => vec![format!("--{key}={secret}")],
            1 => vec![format!("--{key}"), secret.clone()],
            2 => vec![format!("{}={secret}", key.to_uppercase())],
            3 => vec![format!("https://host/x?a=b&{key}={secret}&c=d")],
            4 => vec!["sh".into(), "-c".into(), format!("run --{key} {secret} --more")],
            5 => vec!["sh".into(), "-c".into(), format!("export {key}=\"{secret}\"; run")],
            6 => vec![format!("amqp://user:{secret}@host/vhost")],
            7 => vec![format!("{{\"{key}\":\"{secret}\"}}")],
            _ => vec!["curl".into(), "-H".into(), format!("X-Api-Key: {secret}")],
        };
        let (redacted, changed) = command(&args);
        prop_assert!(changed);
        prop_assert!(!redacted.join(" ").contains(&secret), "{redacted:?}");
        prop_assert_eq!(command(&redacted).0, redacted.clone(), "it is the same when done again");
    }

    #[test]
    fn any_command_line_stays_one(args in prop::collection::vec(".{0,60}", 0..8)) {
        let (redacted, changed) = command(&args);
        prop_assert_eq!(redacted.len(), args.len());
        prop_assert_eq!(changed, redacted != args);
    }
}
