//! What a user may set about OTLP.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::PATH;
use super::wire::{Attribute, Value};
use crate::config::{Count, Refused};
use crate::notify::http::{HttpConfig, HttpUrl};

/// Logs over OTLP/HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Address of the receiver, such as `http://localhost:4318`. Logs go to `/v1/logs` below it.
    pub endpoint: Endpoint,
    /// How it is spoken to.
    #[serde(default)]
    pub http: HttpConfig,
    /// Records of one request at most.
    #[serde(default)]
    pub batch: Count<1, 64, 512>,
    /// Further attributes of the resource, over those that killwatch gives it.
    #[serde(default, skip_serializing_if = "ResourceAttributes::is_empty")]
    pub resource_attributes: ResourceAttributes,
}

impl OtlpConfig {
    /// What the types of the values cannot tell.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub fn check(&self) -> Result<(), String> {
        self.http.check(self.endpoint.url())
    }

    /// The attributes of who sends: killwatch on this node, which is one of Kubernetes if the daemon runs in a pod there.
    pub(super) fn resource(&self, node: &str, in_pod: bool) -> Vec<Attribute<'static>> {
        let node = node.to_owned();
        let mut all = BTreeMap::from([
            (Cow::Borrowed("service.name"), Cow::Borrowed("killwatch")),
            (Cow::Borrowed("service.version"), Cow::Borrowed(env!("CARGO_PKG_VERSION"))),
            (Cow::Borrowed("host.name"), Cow::Owned(node.clone())),
        ]);
        if in_pod {
            all.insert(Cow::Borrowed("k8s.node.name"), Cow::Owned(node));
        }
        for (key, value) in &self.resource_attributes.0 {
            all.insert(Cow::Owned(key.clone()), Cow::Owned(value.clone()));
        }
        all.into_iter().map(|(key, value)| Attribute { key, value: Value::text(value) }).collect()
    }
}

/// Address of a receiver, without `/v1/logs` at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint(HttpUrl);

impl Endpoint {
    /// The address.
    #[must_use]
    pub const fn url(&self) -> &HttpUrl {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        // Both are met in manuals; logs never go to /v1/logs/v1/logs.
        let base = text.strip_suffix('/').unwrap_or(text).strip_suffix(PATH).unwrap_or(text);
        base.parse().map(Self)
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Refused;

    /// Unlike other values it is not repeated in the error: it may hold a password.
    fn try_from(text: String) -> Result<Self, Refused> {
        text.parse()
    }
}

/// Attributes of the resource: at most 32, keys of 1 to 128 bytes, values of 1 to 1024.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct ResourceAttributes(BTreeMap<String, String>);

impl ResourceAttributes {
    /// More are refused.
    pub const MAX: usize = 32;
    const MAX_KEY: usize = 128;
    const MAX_VALUE: usize = 1024;

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for ResourceAttributes {
    type Error = Refused;

    fn try_from(all: BTreeMap<String, String>) -> Result<Self, Refused> {
        let plain = |text: &str, max| {
            (1..=max).contains(&text.len()) && !text.chars().any(char::is_control)
        };
        if all.len() > Self::MAX {
            return Err(Refused::new(format!("must have at most {} attributes", Self::MAX)));
        }
        let wrong = |(key, value): &(&String, &String)| {
            !plain(key, Self::MAX_KEY) || !plain(value, Self::MAX_VALUE)
        };
        match all.iter().find(wrong) {
            None => Ok(Self(all)),
            Some((key, _)) => {
                let (max_key, max_value) = (Self::MAX_KEY, Self::MAX_VALUE);
                let allowed = format!(
                    "must have keys of 1 to {max_key} bytes and values of 1 to {max_value}, without control characters"
                );
                Err(Refused::new(allowed).with_value(key))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> Result<OtlpConfig, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn the_endpoint_is_a_base() {
        for text in [
            "https://otel.example:4318",
            "https://otel.example:4318/",
            "https://otel.example:4318/v1/logs",
            "https://otel.example:4318/v1/logs/",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            let whole = format!("{:?}", endpoint.url().under(PATH));
            assert_eq!(whole, "https://otel.example:4318", "{text}");
            assert!(endpoint.url().is_bare(), "{text}");
        }
        let tenant: Endpoint = "https://otel.example/tenant/7/v1/logs".parse().unwrap();
        assert_eq!(tenant.0, "https://otel.example/tenant/7".parse().unwrap());
        let refused = Endpoint::try_from("https://me:hunter2@a/".to_owned()).unwrap_err();
        assert!(!refused.to_string().contains("hunter2"));
        let why = config(serde_json::json!({"endpoint": "ftp://a/hunter2"})).unwrap_err();
        assert!(why.contains("http://") && !why.contains("hunter2"), "{why}");
    }

    #[test]
    fn attributes_of_the_resource_are_bounded_and_win() {
        let of = |attributes| {
            config(serde_json::json!({"endpoint": "http://a", "resource_attributes": attributes}))
        };
        let read =
            of(serde_json::json!({"deployment.environment.name": "prod", "service.name": "kw"}));
        let resource = read.unwrap().resource("node-1", true);
        let pairs: Vec<_> = resource.iter().map(|a| (&*a.key, a.value.clone())).collect();
        assert_eq!(
            pairs,
            [
                ("deployment.environment.name", Value::text("prod")),
                ("host.name", Value::text("node-1")),
                ("k8s.node.name", Value::text("node-1")),
                ("service.name", Value::text("kw")),
                ("service.version", Value::text(env!("CARGO_PKG_VERSION"))),
            ]
        );
        let many: BTreeMap<_, _> = (0..33).map(|n| (n.to_string(), "x")).collect();
        assert!(of(serde_json::json!(many)).unwrap_err().contains("at most 32"));
        for (key, value) in [("", "x"), ("k", ""), ("k\n", "x"), ("k", "\u{1b}[2J")] {
            assert!(of(serde_json::json!({key: value})).is_err(), "{key:?} {value:?}");
        }
        assert!(of(serde_json::json!({"k": "x".repeat(1025)})).is_err());
        let plain = config(serde_json::json!({"endpoint": "http://a"})).unwrap();
        assert!(plain.resource("n", false).iter().all(|a| a.key != "k8s.node.name"));
        assert_eq!(plain.batch.get(), 64);
        for batch in ["0", "513", "many"] {
            assert!(config(serde_json::json!({"endpoint": "http://a", "batch": batch})).is_err());
        }
    }
}
