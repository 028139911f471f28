//! `killwatch check-config FILE`: whether the file is allowed, and what is in force with it. With `--explain`, what a cgroup path says instead,
//! and which rule makes which job of it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::{EX_USAGE, complain, print};
use crate::api::guard::Rules;
use crate::config::{Config, ConfigError, file};
use crate::footprint;
use crate::text::{self, one_line};

mod explain;

/// Arguments of `killwatch check-config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The YAML file; with --explain it may be left out
    #[arg(value_name = "FILE", required_unless_present = "explain")]
    file: Option<PathBuf>,

    /// Print what this cgroup path says, and which rule makes which job of it
    #[arg(long, value_name = "CGROUP_PATH")]
    explain: Option<OsString>,

    /// A label of the pod or container, for --explain; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", requires = "explain")]
    label: Vec<Pair>,

    /// An annotation of the pod, for --explain
    #[arg(long, value_name = "KEY=VALUE", requires = "explain")]
    annotation: Vec<Pair>,

    /// A variable of the victim's environment, for --explain
    #[arg(long, value_name = "NAME=VALUE", requires = "explain")]
    environ: Vec<Pair>,

    /// A tag that the worker set, for --explain
    #[arg(long, value_name = "KEY=VALUE", requires = "explain")]
    tag: Vec<Pair>,
}

/// `KEY=VALUE`.
#[derive(Debug, Clone)]
struct Pair(String, String);

impl std::str::FromStr for Pair {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self(key.to_owned(), value.to_owned())),
            _ => Err("must be a key, `=` and a value, such as job-name=resize"),
        }
    }
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let read = |path| {
        let config = file::read(path)?;
        config.named_sinks().map_err(ConfigError::Combination)?;
        if let Some(Err(error)) = config.web.config_file.as_deref().map(Rules::read) {
            return Err(ConfigError::Combination(format!("web.config_file: {error}")));
        }
        Ok::<_, ConfigError>(config)
    };
    let config = match args.file.as_deref().map(read).transpose() {
        Ok(config) => config,
        Err(error) => {
            complain(&error.to_string());
            return Ok(ExitCode::from(EX_USAGE));
        }
    };
    let text = match &args.explain {
        Some(path) => {
            let rules = config.unwrap_or_default().jobs.rules()?;
            let map = |pairs: &[Pair]| {
                pairs.iter().map(|Pair(key, value)| (key.clone(), value.clone())).collect()
            };
            let given = explain::Given {
                path: text::from_bytes(path.as_bytes()),
                labels: map(&args.label),
                annotations: map(&args.annotation),
                environ: map(&args.environ),
                tags: map(&args.tag),
            };
            explain::explain(&given, &rules)
        }
        None => {
            let config = config.unwrap_or_default();
            format!("ok\n{}{}", summary(&config)?, memory(&config))
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Every key and its value in force, `key: value` a line.
pub(super) fn summary(config: &Config) -> Result<String, serde_json::Error> {
    let mut lines = String::new();
    flatten("", &serde_json::to_value(config)?, &mut lines);
    Ok(lines)
}

/// What memory the daemon may hold with it, as a comment beside the keys.
pub(super) fn memory(config: &Config) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let footprint = footprint::of(config);
    let (start, most) = (mib(footprint.at_start()), mib(footprint.at_most()));
    let mut lines = format!(
        "# resident memory: {start:.1} MiB at the start, {most:.1} MiB if all that is bounded were full:\n"
    );
    for part in footprint.0.iter().filter(|part| part.at_most > part.at_start) {
        let by = if part.set_by.is_empty() { String::new() } else { format!(" ({})", part.set_by) };
        lines.push_str(&format!("#   {:.1} MiB {}{by}\n", mib(part.at_most), part.what));
    }
    lines
}

fn flatten(key: &str, value: &Value, lines: &mut String) {
    match value {
        Value::Object(section) => {
            for (name, value) in section {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, lines);
            }
        }
        Value::String(text) => lines.push_str(&format!("{key}: {}\n", one_line(text))),
        other => lines.push_str(&format!("{key}: {}\n", one_line(&other.to_string()))),
    }
}
