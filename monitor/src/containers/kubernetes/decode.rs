//! Reads what the API answers. No I/O.
//!
//! An answer is a stranger's. What is not kept is passed over as it is read, so that an answer of a certain size cannot be made to hold many
//! times as much memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::{MAX_LABELS, Wanted, cut, some};

/// Longest answer that is read, in bytes. The API's own bound on the annotations of one object is 256 KiB.
pub const MAX_ANSWER: usize = 1 << 20;
/// Annotation of the pod that stands in the API for a static one: the uid by which its node knows it.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// Why an answer cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// What is kept of an object's metadata. Every text is at most [`super::super::MAX_TEXT`] bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Its uid.
    pub uid: String,
    /// The uid by which its node knows it, if it is a static pod.
    pub config_hash: Option<String>,
    /// What it belongs to: its controller, else its only owner.
    pub owner: Option<Reference>,
    /// Those of its labels that are wanted.
    pub labels: BTreeMap<String, String>,
    /// Those of its annotations that are wanted.
    pub annotations: BTreeMap<String, String>,
}

/// An object as another refers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Group and version, such as `apps/v1`; `v1` in the core group.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Option<String>,
}

/// Reads an object, of which the metadata alone matters.
///
/// # Errors
/// If it is no JSON, is no object with a uid, or holds a value of a wrong type where it matters.
pub fn metadata(answer: &[u8], wanted: &Wanted) -> Result<Metadata, Malformed> {
    let mut json = serde_json::Deserializer::from_slice(answer);
    let read = Object(wanted).deserialize(&mut json).and_then(|read| json.end().map(|()| read));
    let metadata = read.map_err(|error| Malformed(error.to_string()))?;
    metadata
        .filter(|metadata| !metadata.uid.is_empty())
        .ok_or_else(|| Malformed("an object without a uid".to_owned()))
}

/// Reads what `/version` answers: the server's version.
///
/// # Errors
/// If it is no JSON with one.
pub fn version(answer: &[u8]) -> Result<String, Malformed> {
    #[derive(Deserialize)]
    struct Version {
        #[serde(rename = "gitVersion")]
        git_version: String,
    }
    let read: Version =
        serde_json::from_slice(answer).map_err(|error| Malformed(error.to_string()))?;
    Ok(cut(&crate::text::one_line(&read.git_version)))
}

/// The members of a JSON object, each given to `member`, which must read its value.
trait Members<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Reads an object, or nothing where there is `null`; says which it was.
struct Reader<M>(M);

impl<'de, M: Members<'de>> DeserializeSeed<'de> for Reader<&mut M> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, M: Members<'de>> Visitor<'de> for Reader<&mut M> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while let Some(key) = map.next_key_seed(Text)? {
            self.0.member(&key, &mut map)?;
        }
        Ok(true)
    }
}

/// A text, without a copy where none is needed.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The whole object.
struct Object<'w>(&'w Wanted);

impl<'w> Object<'w> {
    fn deserialize<'de, D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Option<Metadata>, D::Error> {
        struct Top<'w>(&'w Wanted, Option<Metadata>);
        impl<'de> Members<'de> for Top<'_> {
            fn member<A: MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
            ) -> Result<(), A::Error> {
                if key != "metadata" {
                    return map.next_value::<IgnoredAny>().map(|_| ());
                }
                let mut members = MetadataMembers { wanted: self.0, read: Metadata::default() };
                let there = map.next_value_seed(Reader(&mut members))?;
                self.1 = there.then_some(members.read);
                Ok(())
            }
        }
        let mut top = Top(self.0, None);
        Reader(&mut top).deserialize(deserializer)?;
        Ok(top.1)
    }
}

struct MetadataMembers<'w> {
    wanted: &'w Wanted,
    read: Metadata,
}

impl<'de> Members<'de> for MetadataMembers<'_> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "uid" => self.read.uid = cut(&map.next_value_seed(Text)?),
            "ownerReferences" => self.read.owner = map.next_value_seed(Owners)?,
            "labels" => {
                let mut kept = Pairs::of(&self.wanted.labels);
                map.next_value_seed(Reader(&mut kept))?;
                self.read.labels = kept.pairs;
            }
            "annotations" => {
                let mut kept = Pairs::of(&self.wanted.annotations);
                map.next_value_seed(Reader(&mut kept))?;
                self.read.config_hash = kept.config_hash;
                self.read.annotations = kept.pairs;
            }
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Texts under those keys that are wanted, and that of [`CONFIG_HASH`].
struct Pairs<'w> {
    wanted: &'w BTreeSet<String>,
    pairs: BTreeMap<String, String>,
    config_hash: Option<String>,
}

impl<'w> Pairs<'w> {
    fn of(wanted: &'w BTreeSet<String>) -> Self {
        Self { wanted, pairs: BTreeMap::new(), config_hash: None }
    }
}

impl<'de> Members<'de> for Pairs<'_> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let wanted = self.wanted.contains(key) && self.pairs.len() < MAX_LABELS;
        if !wanted && key != CONFIG_HASH {
            return map.next_value::<IgnoredAny>().map(|_| ());
        }
        let value = map.next_value_seed(Text)?;
        if key == CONFIG_HASH {
            self.config_hash = some(&value);
        }
        if wanted {
            self.pairs.insert(key.to_owned(), cut(&value));
        }
        Ok(())
    }
}

/// The list of owners, of which one is kept.
struct Owners;

impl<'de> DeserializeSeed<'de> for Owners {
    type Value = Option<Reference>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Owners {
    type Value = Option<Reference>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of owners")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct One<'a> {
            #[serde(borrow)]
            api_version: Cow<'a, str>,
            #[serde(borrow)]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            name: Cow<'a, str>,
            #[serde(borrow, default)]
            uid: Cow<'a, str>,
            #[serde(default)]
            controller: Option<bool>,
        }
        let (mut controller, mut first, mut count) = (None, None, 0_usize);
        while let Some(one) = seq.next_element::<One<'de>>()? {
            count += 1;
            let is_controller = one.controller == Some(true);
            if controller.is_some() || !(is_controller || first.is_none()) {
                continue;
            }
            let reference = some(&one.kind).zip(some(&one.name)).map(|(kind, name)| Reference {
                api_version: cut(&one.api_version),
                kind,
                name,
                uid: some(&one.uid),
            });
            if is_controller {
                controller = reference;
            } else {
                first = reference;
            }
        }
        Ok(controller.or_else(|| first.filter(|_| count == 1)))
    }
}

#[cfg(test)]
mod tests;
