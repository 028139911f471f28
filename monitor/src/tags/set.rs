//! The tags of one process: what they may hold, and how they are read from a request. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Most tags of a process.
pub const MAX_TAGS: usize = 16;
/// Longest name of a tag, in bytes.
pub const MAX_KEY: usize = 64;
/// Longest value of a tag, in bytes.
pub const MAX_VALUE: usize = 256;
/// Most bytes of all names and values of a process.
pub const MAX_BYTES: usize = 2 << 10;

/// 1 to [`MAX_TAGS`] tags within their bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TagSet(BTreeMap<String, String>);

/// Why tags were refused: which, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTags(String);

impl TagSet {
    /// Reads a JSON object of strings.
    ///
    /// # Errors
    /// If it is none, or out of bounds.
    pub fn parse(json: &[u8]) -> Result<Self, BadTags> {
        let shape = |error: serde_json::Error| {
            BadTags(format!(
                "the tags cannot be read: {error}; must be a JSON object of strings, such as {{\"job_id\":\"4711\"}}"
            ))
        };
        let Pairs(pairs) = serde_json::from_slice(json).map_err(shape)?;
        Self::new(pairs)
    }

    /// Tags from names and values.
    ///
    /// # Errors
    /// If they are out of bounds, or a name is there twice.
    pub fn new(pairs: Vec<(String, String)>) -> Result<Self, BadTags> {
        let bad = |text: String| Err(BadTags(text));
        if !(1..=MAX_TAGS).contains(&pairs.len()) {
            return bad(format!("{} tags are not allowed: must be 1 to {MAX_TAGS}", pairs.len()));
        }
        let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_BYTES {
            return bad(format!(
                "{bytes} bytes of tags are not allowed: must be {MAX_BYTES} at most"
            ));
        }
        let mut tags = BTreeMap::new();
        for (key, value) in pairs {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-/".contains(&b);
            if !(1..=MAX_KEY).contains(&key.len()) || !key.bytes().all(plain) {
                return bad(format!(
                    "{} is not allowed as the name of a tag: must be 1 to {MAX_KEY} letters, digits or `_.-/`",
                    short(&key)
                ));
            }
            if !(1..=MAX_VALUE).contains(&value.len()) || value.chars().any(char::is_control) {
                return bad(format!(
                    "{key}: {} is not allowed: must be 1 to {MAX_VALUE} bytes without control characters; leave out what is not known",
                    short(&value)
                ));
            }
            if tags.contains_key(&key) {
                return bad(format!("{key}: given twice"));
            }
            tags.insert(key, value);
        }
        Ok(Self(tags))
    }

    /// A value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// As records have them.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.0.clone()
    }
}

/// What a stranger sent, quoted and cut.
fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}

/// Names and values in the order of the text, twice if they are there twice; not more than are worth refusing.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    if pairs.len() >= MAX_TAGS {
                        return Err(de::Error::custom(format_args!("more than {MAX_TAGS} tags")));
                    }
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(json: &str) -> String {
        TagSet::parse(json.as_bytes()).expect_err(json).to_string()
    }

    #[test]
    fn reads_an_object_of_strings() {
        let tags = TagSet::parse(br#" {"job_id":"4711","k8s.io/x-Y":"a \"b\" \u00e9"} "#).unwrap();
        assert_eq!((tags.get("job_id"), tags.get("k8s.io/x-Y")), (Some("4711"), Some("a \"b\" é")));
        assert_eq!(tags.get("job"), None);
    }

    #[test]
    fn says_what_is_wrong() {
        for (json, part) in [
            ("", "must be a JSON object of strings"),
            ("[]", "must be a JSON object of strings"),
            (r#"{"a":1}"#, "invalid type: integer"),
            (r#"{"a":null}"#, "must be a JSON object of strings"),
            (r#"{"a":{"b":"c"}}"#, "must be a JSON object of strings"),
            (r#"{"a":"b"} x"#, "trailing characters"),
            ("{}", "0 tags are not allowed: must be 1 to 16"),
            (r#"{"":"b"}"#, "as the name of a tag"),
            (r#"{"a b":"c"}"#, "\"a b\" is not allowed as the name of a tag"),
            (r#"{"é":"c"}"#, "as the name of a tag"),
            (r#"{"a":""}"#, "leave out what is not known"),
            (r#"{"a":"b\nc"}"#, "without control characters"),
            (r#"{"a":"b\u0085c"}"#, "without control characters"),
            (r#"{"a":"1","a":"2"}"#, "a: given twice"),
        ] {
            let refusal = refused(json);
            assert!(refusal.contains(part) && !refusal.contains('\n'), "{json}: {refusal}");
        }
    }

    #[test]
    fn each_bound_is_where_it_is_said_to_be() {
        let object = |pairs: &[(String, String)]| {
            serde_json::to_string(&pairs.iter().cloned().collect::<BTreeMap<_, _>>()).unwrap()
        };
        let many = |count: usize| -> Vec<_> {
            (0..count).map(|n| (format!("k{n}"), "v".into())).collect()
        };
        TagSet::parse(object(&many(MAX_TAGS)).as_bytes()).unwrap();
        assert!(refused(&object(&many(MAX_TAGS + 1))).contains("more than 16 tags"));
        let one = |key: usize, value: usize| object(&[("k".repeat(key), "v".repeat(value))]);
        TagSet::parse(one(MAX_KEY, MAX_VALUE).as_bytes()).unwrap();
        refused(&one(MAX_KEY + 1, 1));
        refused(&one(1, MAX_VALUE + 1));
        let wide = |count: usize, value: usize| -> String {
            let pairs: Vec<_> = (0..count).map(|n| (format!("k{n}"), "v".repeat(value))).collect();
            object(&pairs)
        };
        TagSet::parse(wide(8, 254).as_bytes()).unwrap();
        assert!(refused(&wide(8, 255)).contains("2056 bytes of tags"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_tags_or_one_line(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Err(refusal) = TagSet::parse(&bytes) {
                prop_assert!(!refusal.to_string().contains('\n'));
            }
        }

        #[test]
        fn what_is_taken_is_within_bounds(pairs in prop::collection::btree_map("[a-z/._ -]{0,70}", "\\PC{0,90}", 0..20)) {
            let json = serde_json::to_vec(&pairs).unwrap();
            if let Ok(tags) = TagSet::parse(&json) {
                prop_assert_eq!(tags.to_map(), pairs.clone());
                prop_assert!((1..=MAX_TAGS).contains(&pairs.len()));
                prop_assert!(pairs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() <= MAX_BYTES);
                prop_assert!(pairs.values().all(|v| (1..=MAX_VALUE).contains(&v.len())));
            }
        }
    }
}
