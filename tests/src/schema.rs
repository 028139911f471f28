//! The published JSON Schemas, which every record and every alert must hold to.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, bail};
use jsonschema::Validator;
use serde_json::Value;

/// A schema file of docs/, in the binary, so that the test machine needs no checkout.
struct Schema {
    name: &'static str,
    text: &'static str,
    validator: OnceLock<Result<Validator, String>>,
}

static DEATH: Schema = Schema {
    name: "docs/death.schema.json",
    text: include_str!("../../docs/death.schema.json"),
    validator: OnceLock::new(),
};

static ALERT: Schema = Schema {
    name: "docs/alert.schema.json",
    text: include_str!("../../docs/alert.schema.json"),
    validator: OnceLock::new(),
};

/// Holds a record to docs/death.schema.json.
///
/// # Errors
/// Each violation with its place; or that the schema is no schema.
pub fn validate(record: &Value) -> Result<()> {
    DEATH.validate(record)
}

/// Holds an alert to docs/alert.schema.json.
///
/// # Errors
/// Each violation with its place; or that the schema is no schema.
pub fn validate_alert(alert: &Value) -> Result<()> {
    ALERT.validate(alert)
}

impl Schema {
    fn validate(&self, record: &Value) -> Result<()> {
        let validator =
            self.validator.get_or_init(|| self.load().map_err(|error| format!("{error:#}")));
        let validator = validator.as_ref().map_err(|error| anyhow!("{error}"))?;
        let violations: Vec<String> = validator
            .iter_errors(record)
            .map(|error| format!("  {}: {error}", error.instance_path()))
            .collect();
        if !violations.is_empty() {
            bail!(
                "a record violates {}:\n{}\nthe record: {record:#}",
                self.name,
                violations.join("\n")
            );
        }
        Ok(())
    }

    fn load(&self) -> Result<Validator> {
        let schema: Value =
            serde_json::from_str(self.text).with_context(|| format!("{} is no JSON", self.name))?;
        jsonschema::validator_for(&schema)
            .map_err(|error| anyhow!("{} is no JSON Schema: {error}", self.name))
    }
}
