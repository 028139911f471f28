//! What lies in a bundle, made from what was found. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use super::redact;
use crate::cli::look::Look;
use crate::cli::story;
use crate::death::{Death, History, KindsAt};

/// What was asked of the daemon: the answer, or why there is none.
pub(super) type Asked = Result<Value, String>;

/// What a bundle is made of.
pub(super) struct Facts {
    /// The record.
    pub(super) record: Value,
    /// The answer of `/api/v1/deaths` for the time around it.
    pub(super) neighbours: Asked,
    /// The answer of `/api/v1/status`.
    pub(super) host: Asked,
}

/// A file of a bundle.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: &'static str,
    pub(super) content: Vec<u8>,
}

impl Facts {
    /// The files, without what looks like a secret.
    ///
    /// # Errors
    /// If the record is not one that this killwatch knows.
    pub(super) fn files(mut self) -> anyhow::Result<Vec<File>> {
        redact::value(&mut self.record);
        let death: Death = serde_json::from_value(self.record.clone())?;
        let mut files = vec![
            File { name: "record.json", content: pretty(&self.record) },
            File { name: "story.txt", content: story::story(&death, Look::PLAIN).into_bytes() },
            File { name: "story.md", content: story::markdown(&death).into_bytes() },
        ];
        let mut lacks = Vec::new();
        match &death.memory.history {
            Some(history) => {
                files.push(File {
                    name: "history.csv",
                    content: csv(history, death.time).into_bytes(),
                });
            }
            None => lacks.push(("history.csv", "the record has no history".to_owned())),
        }
        for (name, asked) in [
            ("neighbours.json", self.neighbours.map(|page| others(page, death.id))),
            ("host.json", self.host),
        ] {
            match asked {
                Ok(mut value) => {
                    redact::value(&mut value);
                    files.push(File { name, content: pretty(&value) });
                }
                Err(why) => lacks.push((name, why)),
            }
        }
        let readme = readme(&death, &lacks);
        files.insert(0, File { name: "README.txt", content: readme.into_bytes() });
        Ok(files)
    }
}

/// The deaths of a page, but for one.
fn others(page: Value, id: Uuid) -> Value {
    let id = id.to_string();
    let deaths = page.get("deaths").and_then(Value::as_array).cloned().unwrap_or_default();
    let other = |death: &Value| death.get("id").and_then(Value::as_str) != Some(&id);
    deaths.into_iter().filter(other).collect()
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// What was looked at at one moment.
#[derive(Default)]
struct At<'a> {
    usage: Option<u64>,
    kinds: Option<&'a KindsAt>,
}

/// Usage and kinds by time, oldest first. What was not looked at is empty.
fn csv(history: &History, death: Timestamp) -> String {
    // Moments are told apart by the millisecond, which is what a row shows.
    let mut rows: BTreeMap<Reverse<u64>, At<'_>> = BTreeMap::new();
    for at in &history.usage {
        rows.entry(Reverse(millis(at.ago_seconds))).or_default().usage = Some(at.bytes);
    }
    for at in &history.kinds {
        rows.entry(Reverse(millis(at.ago_seconds))).or_default().kinds = Some(at);
    }
    let cell = |amount: Option<u64>| amount.map_or_else(String::new, |amount| amount.to_string());
    let limit = cell(history.limit_bytes);
    let mut csv = "time,seconds_before_death,usage_bytes,anon_bytes,file_bytes,shmem_bytes,kernel_bytes,swap_bytes,limit_bytes\n".to_owned();
    for (Reverse(ago), at) in rows {
        let time = i64::try_from(ago).ok().map(SignedDuration::from_millis);
        let time = time.and_then(|ago| death.checked_sub(ago).ok());
        let time = time.map_or_else(String::new, |time| format!("{time:.3}"));
        let kinds = at.kinds.map_or([None; 5], |at| {
            [at.anon_bytes, at.file_bytes, at.shmem_bytes, at.kernel_bytes, at.swap_bytes].map(Some)
        });
        let kinds = kinds.map(cell).join(",");
        // Writing to a String cannot fail.
        let _ = writeln!(
            csv,
            "{time},{}.{:03},{},{kinds},{limit}",
            ago / 1000,
            ago % 1000,
            cell(at.usage)
        );
    }
    csv
}

fn millis(seconds: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates; no look is after the death"
    )]
    let millis = (seconds.max(0.0) * 1000.0).round() as u64;
    millis
}

fn readme(death: &Death, lacks: &[(&str, String)]) -> String {
    let mut text = format!(
        "What killwatch {} knows of one death, for a ticket.\n\n{}\n\n{ABOUT}",
        env!("CARGO_PKG_VERSION"),
        Look { unicode: false, ..Look::PLAIN }.spelled(story::headline(death)),
    );
    if !lacks.is_empty() {
        text.push_str("\nLacking:\n");
        for (name, why) in lacks {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name}: {}", crate::text::one_line(why));
        }
    }
    text
}

const ABOUT: &str = "In here:
  record.json      the record; docs/events.md says what each key means
  story.txt        the same as a page, as `killwatch why` prints it
  story.md         the same for a ticket
  history.csv      memory of the cgroup in the minutes before, bytes
  neighbours.json  other deaths on the node within 5 minutes before and after, at most 50
  host.json        how the daemon fared as this was made

Secrets: of environments a record holds only variables on an allowlist. Command lines are not
filtered by the daemon; in this bundle, what looks like a secret in them is replaced by [redacted]:
the values of flags, assignments, headers and parameters with names such as password, token, key or
secret, users and passwords in URLs, and tokens whose form is known. In all other texts only URLs
and such tokens are looked for. A secret that looks like none is still there: read before you send.
";

/// One archive of them, gzipped, below one directory.
///
/// # Errors
/// If a header cannot be written.
pub(super) fn pack(directory: &str, time: Timestamp, files: &[File]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for file in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(file.content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(time.as_second()).unwrap_or(0));
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, format!("{directory}/{}", file.name), &*file.content)?;
    }
    let mut gzip = archive.into_inner()?;
    gzip.flush()?;
    gzip.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::death::sample;

    fn record(death: &Death) -> Value {
        serde_json::to_value(death).unwrap()
    }

    fn text<'a>(files: &'a [File], name: &str) -> &'a str {
        let file = files.iter().find(|file| file.name == name).expect(name);
        std::str::from_utf8(&file.content).unwrap()
    }

    #[test]
    fn all_that_is_known_and_no_secret() {
        let mut death = sample::memory::leak();
        death.victim.cmdline = Some(
            ["worker", "--password", "hunter2", "amqp://u:hunter2@h"].map(str::to_owned).into(),
        );
        let mut other = sample::killed();
        other.victim.cmdline = Some(vec!["x".into(), "token=hunter2".into()]);
        let mut own = record(&death);
        own["new_key"] = Value::from(7);
        let page =
            serde_json::json!({"run": "r", "last": 9, "deaths": [own.clone(), record(&other)]});
        let facts =
            Facts { record: own, neighbours: Ok(page), host: Ok(serde_json::json!({"node": "n"})) };
        let files = facts.files().unwrap();
        let names: Vec<_> = files.iter().map(|file| file.name).collect();
        assert_eq!(
            names,
            [
                "README.txt",
                "record.json",
                "story.txt",
                "story.md",
                "history.csv",
                "neighbours.json",
                "host.json"
            ]
        );
        for file in &files {
            assert!(!text(&files, file.name).contains("hunter2"), "{}", file.name);
        }
        assert!(
            text(&files, "record.json").contains("\"new_key\": 7"),
            "what is not known here stays"
        );
        let neighbours: Vec<Value> = serde_json::from_str(text(&files, "neighbours.json")).unwrap();
        assert_eq!(neighbours.len(), 1);
        let history = text(&files, "history.csv");
        assert_eq!(history.lines().count(), 1 + 109, "a row for each moment");
        assert_eq!(
            history.lines().nth(1),
            Some(
                "2026-01-31T11:55:00.123Z,300.000,37748736,25165824,4194304,0,8388608,0,268435456"
            )
        );
        assert!(text(&files, "README.txt").contains("read before you send"));
    }

    #[test]
    fn what_is_lacking_is_said() {
        let facts = Facts {
            record: record(&sample::hostile()),
            neighbours: Err("it says 503\n\u{1b}[2J".into()),
            host: Err("forbidden".into()),
        };
        let files = facts.files().unwrap();
        assert_eq!(files.len(), 5);
        let readme = text(&files, "README.txt");
        assert!(
            readme
                .contains("  neighbours.json: it says 503\\n\\u{1b}[2J\n  host.json: forbidden\n")
        );
        assert!(readme.chars().all(|c| c == '\n' || !c.is_control()));
        let bare = Facts {
            record: record(&sample::unknown()),
            neighbours: Err(String::new()),
            host: Err(String::new()),
        };
        assert!(
            text(&bare.files().unwrap(), "README.txt")
                .contains("history.csv: the record has no history")
        );
        let strange =
            Facts { record: Value::Null, neighbours: Ok(Value::Null), host: Ok(Value::Null) };
        assert!(strange.files().is_err());
    }

    #[test]
    fn an_archive_that_unpacks() {
        let files = [
            File { name: "README.txt", content: b"a".to_vec() },
            File { name: "record.json", content: vec![b'x'; 100_000] },
        ];
        let packed = pack("killwatch-1", "2026-01-31T12:00:00Z".parse().unwrap(), &files).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&*packed));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            assert_eq!(entry.header().mode().unwrap(), 0o600);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.push((path, content.len()));
        }
        assert_eq!(
            found,
            [
                ("killwatch-1/README.txt".to_owned(), 1),
                ("killwatch-1/record.json".to_owned(), 100_000)
            ]
        );
    }
}
