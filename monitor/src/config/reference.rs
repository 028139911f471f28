//! The tables of docs/configuration.md, made from the code: keys and what they mean from the structures and their comments, what is allowed from how a
//! wrong value is refused, defaults from the default configuration, flags and variables from clap. `UPDATE_GOLDEN=1` writes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use clap::{CommandFactory as _, Parser};
use serde_json::{Map, Value, json};

use super::{Config, Flags, file};
use crate::notify::SinkConfig;
use crate::notify::kind::Kind;

mod allowed;
mod source;

use allowed::{allowed, config_with, refusal, size};
use source::Source;

/// Where more is said.
const MORE: &[(&str, &str)] = &[
    ("sinks", "[Below](#sinks)."),
    ("jobs.rules", "[A rule](jobs.md#a-rule)."),
    ("links.runbook_url", "[Runbook](runbook.md)."),
    ("ledger.max_memory", "[Memory](SPECIFICATION.md#memory)."),
    ("metrics.labels.container_id", "[Labels](metrics.md#labels)."),
];

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

/// Each key with its value.
fn flat(value: &Value) -> BTreeMap<String, Value> {
    fn add(key: &str, value: &Value, all: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(section) => section.iter().for_each(|(name, value)| {
                add(
                    &if key.is_empty() { name.clone() } else { format!("{key}.{name}") },
                    value,
                    all,
                );
            }),
            value => drop(all.insert(key.to_owned(), value.clone())),
        }
    }
    let mut all = BTreeMap::new();
    add("", value, &mut all);
    all
}

fn of_default() -> BTreeMap<String, Value> {
    flat(&serde_json::to_value(Config::default()).unwrap())
}

/// A default, in words.
fn shown(default: Option<&Value>, allowed: &str) -> String {
    let is_size = allowed.starts_with("a size") || allowed.starts_with("a power of two");
    match default {
        None | Some(Value::Null) => "none".into(),
        Some(Value::Number(bytes)) if is_size => format!("`{}`", size(&bytes.to_string())),
        Some(Value::Array(items)) if items.is_empty() => "none".into(),
        Some(Value::Array(items)) => {
            items.iter().map(|item| shown(Some(item), "")).collect::<Vec<_>>().join(", ")
        }
        Some(Value::String(text)) => format!("`{text}`"),
        Some(other) => format!("`{other}`"),
    }
}

/// Which key each flag sets: the one that changes when the flag is given a value that it takes.
fn flags() -> BTreeMap<String, (String, String)> {
    const VALUES: &[&str] = &[
        "/x",
        "off",
        "none",
        "debug",
        "json",
        "kmsg",
        "false",
        "127.0.0.1:1",
        "64KiB",
        "100",
        "1s",
        "0600",
        "A",
        "CAP_SYSLOG",
    ];
    let default = of_default();
    let command = Line::command();
    let all = command
        .get_arguments()
        .filter(|flag| !flag.is_hide_set() && flag.get_long() != Some("config.file"));
    all.map(|flag| {
        let long = flag.get_long().unwrap();
        let env =
            flag.get_env().unwrap_or_else(|| panic!("--{long} has no variable")).to_str().unwrap();
        assert_eq!(
            env,
            format!("KILLWATCH_{}", long.to_ascii_uppercase().replace(['.', '-'], "_"))
        );
        let key = VALUES.iter().find_map(|value| {
            let now = flat(&with_flag(long, value)?);
            let changed: Vec<_> =
                now.iter().filter(|(key, value)| default.get(*key) != Some(value)).collect();
            match changed.as_slice() {
                [] => None,
                [(key, _)] => Some((*key).clone()),
                more => panic!("--{long} sets {more:?}"),
            }
        });
        (key.unwrap_or_else(|| panic!("--{long} sets nothing")), (long.to_owned(), env.to_owned()))
    })
    .collect()
}

/// The default configuration with one flag over it; `None` if the flag does not take the value.
fn with_flag(long: &str, value: &str) -> Option<Value> {
    let line = Line::try_parse_from(["killwatch", &format!("--{long}={value}")]).ok()?;
    let mut config = Config::default();
    line.flags.apply(&mut config);
    Some(serde_json::to_value(config).unwrap())
}

/// A row for each key below `name`, in the order of the structures.
struct Rows<'a> {
    source: &'a Source,
    sink: Option<&'a str>,
    defaults: BTreeMap<String, Value>,
    flags: BTreeMap<String, (String, String)>,
    seen: BTreeSet<String>,
    text: String,
}

impl Rows<'_> {
    fn head(&mut self) {
        self.text += if self.sink.is_some() {
            "| key | default | allowed | |\n|---|---|---|---|\n"
        } else {
            "| key | default | allowed | | flag, variable |\n|---|---|---|---|---|\n"
        };
    }

    fn section(&mut self, structure: &str, prefix: &str, skip: &[&str]) {
        for field in self.source.fields(structure) {
            let key = if prefix.is_empty() {
                field.name.clone()
            } else {
                format!("{prefix}.{}", field.name)
            };
            match self.source.section(&field.kind) {
                _ if skip.contains(&field.name.as_str()) => {}
                Some(inner) => self.section(inner, &key, skip),
                None => self.row(&key, &field.about),
            }
        }
    }

    fn row(&mut self, key: &str, about: &str) {
        assert!(!about.is_empty(), "{key} has no comment");
        let allowed = allowed(self.sink, key);
        let required = self.sink.is_some_and(|kind| is_required(kind, key));
        let default = match (self.sink, key) {
            (None, "node") => "the host's name".into(),
            (Some(_), "name") => "its kind".into(),
            (Some(_), "group") => of_kinds(|sink| {
                sink.group().map_or("`0s`".into(), |span| format!("`{}m`", span.as_secs() / 60))
            }),
            (Some(_), "rate") => of_kinds(|sink| format!("`{}`", sink.rate())),
            _ if required => "must be set".into(),
            _ => shown(self.defaults.get(key), &allowed),
        };
        let more = MORE
            .iter()
            .find(|(name, _)| self.sink.is_none() && *name == key)
            .map_or(String::new(), |(_, more)| format!(" {more}"));
        let flag = match (self.sink, self.flags.get(key)) {
            (Some(_), _) => String::new(),
            (None, None) => " |".into(),
            (None, Some((long, env))) => format!(" `--{long}` `{env}` |"),
        };
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(
            self.text,
            "| `{key}` | {default} | {} | {}{more} |{flag}",
            cell(&allowed),
            cell(about)
        );
        self.seen.insert(key.to_owned());
    }
}

/// What is local, and what is not, have defaults of their own.
fn of_kinds(say: impl Fn(&SinkConfig) -> String) -> String {
    let sink = |kind| {
        serde_json::to_string(&config_with(Some(kind), "name", json!("n"))["sinks"][0]).unwrap()
    };
    let sink = |kind| serde_json::from_str::<SinkConfig>(&sink(kind)).unwrap();
    format!("{}; {} where it stays on this host", say(&sink("webhook")), say(&sink("stdout")))
}

/// Whether a kind of sink does without.
fn is_required(kind: &str, key: &str) -> bool {
    let mut config = config_with(Some(kind), "name", json!("n"));
    let Some((_, name)) = key.split_once(&format!("{kind}.")) else { return false };
    let settings: &mut Map<String, Value> = config["sinks"][0][kind].as_object_mut().unwrap();
    settings.remove(name).is_some() && refusal(&config).is_some()
}

fn keys(source: &Source) -> (String, BTreeSet<String>) {
    let mut rows = Rows {
        source,
        sink: None,
        defaults: of_default(),
        flags: flags(),
        seen: BTreeSet::new(),
        text: String::new(),
    };
    let all = source.fields("Config");
    let (sections, single): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|field| source.section(&field.kind).is_some());
    rows.text += "### Without a section\n\n";
    rows.head();
    single.iter().for_each(|field| rows.row(&field.name, &field.about));
    for field in sections {
        let _ = write!(rows.text, "\n### `{}`\n\n{}\n\n", field.name, field.about);
        rows.head();
        rows.section(source.section(&field.kind).unwrap(), &field.name, &[]);
    }
    (rows.text, rows.seen)
}

fn sinks(source: &Source) -> String {
    let mut rows = Rows {
        source,
        sink: Some("webhook"),
        defaults: BTreeMap::new(),
        flags: BTreeMap::new(),
        seen: BTreeSet::new(),
        text: String::new(),
    };
    rows.text += "### What all kinds have\n\n";
    rows.head();
    rows.section("SinkConfig", "", &["kind"]);
    for kind in Kind::KEYS {
        let structure = source.variant("Kind", kind);
        rows.sink = Some(kind);
        let item = config_with(Some(kind), "name", json!("n"));
        let parsed = file::parse(item.to_string().as_bytes()).unwrap();
        rows.defaults = flat(&serde_json::to_value(&parsed.sinks[0]).unwrap());
        let _ = write!(rows.text, "\n### `{kind}`\n\n{}\n\n", source.about(&structure));
        if source.fields(&structure).is_empty() {
            rows.text += "No settings of its own.\n";
            continue;
        }
        rows.head();
        rows.section(&structure, kind, &["http"]);
    }
    rows.sink = Some("webhook");
    let item = config_with(Some("webhook"), "name", json!("n"));
    let parsed = file::parse(item.to_string().as_bytes()).unwrap();
    rows.defaults = flat(&serde_json::to_value(&parsed.sinks[0]).unwrap());
    let _ = write!(
        rows.text,
        "\n### `http`\n\n{} Of `webhook`, `alertmanager` and `otlp`, such as `webhook.http.timeout`.\n\n",
        source.about("HttpConfig")
    );
    rows.head();
    rows.section("HttpConfig", "webhook.http", &[]);
    rows.text = rows
        .text
        .replace("`webhook.http.", "`http.")
        .replace("such as `http.timeout`", "such as `webhook.http.timeout`");
    rows.text
}

#[test]
fn the_document_has_every_key_and_flag() {
    let source = Source::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let (keys, seen) = keys(&source);
    // What is in force by default is in the structures' keys; each flag found one of them.
    let missing: Vec<_> = of_default().into_keys().filter(|key| !seen.contains(key)).collect();
    assert_eq!(missing, Vec::<String>::new());
    for (key, (long, _)) in flags() {
        assert!(seen.contains(&key), "--{long} sets {key}, which the document does not have");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    crate::golden::check_section(&path, "keys", &keys);
    crate::golden::check_section(&path, "sinks", &sinks(&source));
}

#[test]
fn the_default_that_a_flag_names_is_the_one_in_force() {
    let (default, mut held) = (serde_json::to_value(Config::default()).unwrap(), 0);
    for flag in Line::command().get_arguments() {
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, said)) = help.split_once("[default: ") else { continue };
        let long = flag.get_long().unwrap();
        // Words, such as "the host's name", are no value.
        let Some(now) = with_flag(long, said.trim_end_matches(']')) else { continue };
        assert_eq!(now, default, "--{long} says {said}");
        held += 1;
    }
    assert!(held > 15, "{held}");
}
