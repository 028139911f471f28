//! Comparing a whole record with what is known to be true.
//!
//! Every leaf of the record must be covered by a claim, so a field that is new or wrong is noticed. All differences are told
//! at once, with the record.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::matrix;

/// What a record must say: a JSON pointer (RFC 6901) → a claim. A claim on an object or array covers all below it.
#[derive(Default)]
pub struct Expected {
    claims: BTreeMap<String, Claim>,
}

struct Claim {
    rule: Rule,
    required: bool,
}

enum Rule {
    Is(Value),
    Like(String, Box<dyn Fn(&Value) -> bool>),
}

impl Expected {
    /// Nothing is expected, so nothing may be there.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Is there and has this value.
    #[must_use]
    pub fn is(self, pointer: &str, value: impl Into<Value>) -> Self {
        self.claim(pointer, Rule::Is(value.into()), true)
    }

    /// Is there and holds to `fits`, which `what` says in words.
    #[must_use]
    pub fn like(self, pointer: &str, what: &str, fits: impl Fn(&Value) -> bool + 'static) -> Self {
        self.claim(pointer, Rule::Like(what.to_owned(), Box::new(fits)), true)
    }

    /// Has this value, if it is there.
    #[must_use]
    pub fn maybe(self, pointer: &str, value: impl Into<Value>) -> Self {
        self.claim(pointer, Rule::Is(value.into()), false)
    }

    /// Holds to `fits`, if it is there.
    #[must_use]
    pub fn maybe_like(
        self,
        pointer: &str,
        what: &str,
        fits: impl Fn(&Value) -> bool + 'static,
    ) -> Self {
        self.claim(pointer, Rule::Like(what.to_owned(), Box::new(fits)), false)
    }

    /// Is not there, whatever was claimed before about it or anything below.
    #[must_use]
    pub fn absent(mut self, pointer: &str) -> Self {
        self.claims.retain(|claimed, _| !covers(pointer, claimed));
        self
    }

    /// The newest claim on a pointer counts.
    fn claim(mut self, pointer: &str, rule: Rule, required: bool) -> Self {
        self.claims.insert(pointer.to_owned(), Claim { rule, required });
        self
    }

    /// The cause that is expected.
    pub(crate) fn cause(&self) -> Option<&str> {
        match &self.claims.get("/cause")?.rule {
            Rule::Is(cause) => cause.as_str(),
            Rule::Like(..) => None,
        }
    }

    /// Holds the record to every claim, and every leaf of the record to a claim. Where a cause is expected, that and the
    /// record's own are noted for the confusion matrix.
    ///
    /// # Errors
    /// All differences, one a line, and the record.
    pub fn compare(&self, record: &Value) -> Result<()> {
        if let Some(caused) = self.cause() {
            let reported = record.pointer("/cause").and_then(Value::as_str);
            matrix::note(caused, reported.unwrap_or("(no cause)"));
        }
        let differences = self.differences(record);
        if differences.is_empty() {
            return Ok(());
        }
        let mut told =
            format!("{} of the record's fields differ from the truth:\n", differences.len());
        for difference in differences {
            // Writing to a String cannot fail.
            let _ = writeln!(told, "  {difference}");
        }
        bail!("{told}the record: {record:#}");
    }

    fn differences(&self, record: &Value) -> Vec<String> {
        let wrong = self.claims.iter().filter_map(|(pointer, claim)| {
            let Some(found) = record.pointer(pointer) else {
                return claim
                    .required
                    .then(|| format!("{pointer}: is missing, should be {}", claim.rule));
            };
            (!claim.rule.fits(found))
                .then(|| format!("{pointer}: is {found}, should be {}", claim.rule))
        });
        let mut leaves = Vec::new();
        collect_leaves(record, String::new(), &mut leaves);
        let unexpected = leaves
            .iter()
            .filter(|(leaf, _)| !self.claims.keys().any(|pointer| covers(pointer, leaf)))
            .map(|(leaf, found)| format!("{leaf}: is {found}, should not be there"));
        wrong.chain(unexpected).collect()
    }
}

impl Rule {
    fn fits(&self, found: &Value) -> bool {
        match self {
            Self::Is(value) => found == value,
            Self::Like(_, fits) => fits(found),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(value) => write!(f, "{value}"),
            Self::Like(what, _) => f.write_str(what),
        }
    }
}

/// Whether `leaf` is at `pointer` or below it.
fn covers(pointer: &str, leaf: &str) -> bool {
    leaf.strip_prefix(pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// All that is no object or array, and those that are empty.
fn collect_leaves<'a>(value: &'a Value, pointer: String, leaves: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, member) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                collect_leaves(member, format!("{pointer}/{key}"), leaves);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                collect_leaves(item, format!("{pointer}/{index}"), leaves);
            }
        }
        _ => leaves.push((pointer, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn expected() -> Expected {
        Expected::new()
            .is("/victim/pid", 7)
            .is("/victim/cmdline", json!(["a", "b"]))
            .like("/time", "a text", Value::is_string)
            .maybe("/oom/group", false)
    }

    #[test]
    fn a_true_record_passes() {
        let record = json!({"time": "now", "victim": {"pid": 7, "cmdline": ["a", "b"]}});
        expected().compare(&record).unwrap();
        let with_optional = json!({"time": "now", "oom": {"group": false}, "victim": {"pid": 7, "cmdline": ["a", "b"]}});
        expected().compare(&with_optional).unwrap();
    }

    #[test]
    fn every_difference_is_told_at_once() {
        let record = json!({"victim": {"pid": 8, "cmdline": ["a"], "new/key": 1}, "oom": {"group": true}, "empty": []});
        let differences = expected().differences(&record);
        assert_eq!(
            differences,
            [
                "/oom/group: is true, should be false",
                "/time: is missing, should be a text",
                r#"/victim/cmdline: is ["a"], should be ["a","b"]"#,
                "/victim/pid: is 8, should be 7",
                "/empty: is [], should not be there",
                "/victim/new~1key: is 1, should not be there",
            ]
        );
        let told = expected().compare(&record).unwrap_err().to_string();
        assert!(
            told.starts_with("6 of the record's fields") && told.contains(r#""pid": 8"#),
            "{told}"
        );
    }

    #[test]
    fn a_claim_covers_what_is_below_it_and_nothing_beside_it() {
        let expected = Expected::new().like("/a", "anything", |_| true);
        assert!(expected.differences(&json!({"a": {"b": [1]}})).is_empty());
        assert_eq!(
            expected.differences(&json!({"a": 1, "ab": 1})),
            ["/ab: is 1, should not be there"]
        );
    }

    #[test]
    fn a_newer_claim_replaces_and_absent_takes_back() {
        let expected = expected().is("/victim/pid", 9).absent("/victim/cmdline").absent("/time");
        let record = json!({"time": "now", "victim": {"pid": 9}});
        assert_eq!(expected.differences(&record), [r#"/time: is "now", should not be there"#]);
    }
}
