//! `killwatch check-config FILE`: whether the file is allowed, and what is in force with it.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::{EX_USAGE, complain, print};
use crate::config::{Config, file};
use crate::text::one_line;

/// Arguments of `killwatch check-config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The YAML file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    match file::read(&args.file) {
        Ok(config) => {
            print(&format!("ok\n{}", summary(&config)?))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            complain(&error.to_string());
            Ok(ExitCode::from(EX_USAGE))
        }
    }
}

/// Every key and its value in force, `key: value` a line.
pub(super) fn summary(config: &Config) -> Result<String, serde_json::Error> {
    let mut lines = String::new();
    flatten("", &serde_json::to_value(config)?, &mut lines);
    Ok(lines)
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
        other => lines.push_str(&format!("{key}: {other}\n")),
    }
}
