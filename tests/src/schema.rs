//! The published JSON Schema, which every record must hold to.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail};
use jsonschema::Validator;
use serde_json::Value;

/// Holds a record to docs/death.schema.json.
///
/// # Errors
/// Each violation with its place; or that the schema is absent or no schema.
pub fn validate(record: &Value) -> Result<()> {
    static SCHEMA: OnceLock<Result<Validator, String>> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| load().map_err(|error| format!("{error:#}"))).as_ref();
    let schema = schema.map_err(|error| anyhow!("{error}"))?;
    let violations: Vec<String> = schema
        .iter_errors(record)
        .map(|error| format!("  {}: {error}", error.instance_path()))
        .collect();
    if !violations.is_empty() {
        bail!(
            "a record violates docs/death.schema.json:\n{}\nthe record: {record:#}",
            violations.join("\n")
        );
    }
    Ok(())
}

fn load() -> Result<Validator> {
    // In the binary, so that the test machine needs no checkout.
    let schema: Value = serde_json::from_str(include_str!("../../docs/death.schema.json"))
        .context("docs/death.schema.json is no JSON")?;
    jsonschema::validator_for(&schema)
        .map_err(|error| anyhow!("docs/death.schema.json is no JSON Schema: {error}"))
}
