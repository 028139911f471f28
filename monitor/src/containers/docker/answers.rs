//! What the engines answer, decoded into what is needed. No I/O. Whatever else an answer has is passed over without being kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::containers::{Info, Wanted, cut, some};

/// Containers in one list; one with more is refused.
pub const MAX_CONTAINERS: usize = 16_384;
/// Labels of one container that are looked at; the rest is passed over.
const MAX_LABELS_READ: usize = 4096;

/// Before the name of a label, this makes an annotation of it: cri-dockerd and dockershim keep them so.
const ANNOTATION: &str = "annotation.";

/// Who tells.
#[derive(Debug, Clone, Copy)]
pub struct Teller {
    /// The source.
    pub source: &'static str,
    /// The runtime, by the name that is put before `://`.
    pub runtime: &'static str,
}

/// What an engine says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// For people.
    pub text: String,
    /// The runtime, if it is known: Podman may be asked by Docker's name, since a package of its own links Docker's socket to it.
    pub runtime: Option<&'static str>,
}

/// Whether this is a whole id: 64 lower-case hexadecimal digits.
#[must_use]
pub fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Decodes the answer of `/version`.
///
/// # Errors
/// When it is none.
pub fn version(body: &[u8]) -> Result<Version, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer<'a> {
        #[serde(borrow)]
        version: Text<'a>,
        #[serde(borrow)]
        api_version: Option<Text<'a>>,
        #[serde(borrow, default)]
        components: Option<First<Component<'a>>>,
    }
    let answer: Answer<'_> = serde_json::from_slice(body)?;
    let (name, runtime) = match answer
        .components
        .and_then(|First(engine)| engine)
        .as_ref()
        .map(|engine| &*engine.name.0)
    {
        Some("Podman Engine") => ("Podman", Some("podman")),
        Some("Engine") => ("Docker", Some("docker")),
        _ => ("an engine", None),
    };
    let mut text = format!("{name} {}", cut(&answer.version.0));
    if let Some(api) = answer.api_version {
        text.push_str(&format!(", API {}", cut(&api.0)));
    }
    Ok(Version { text, runtime })
}

/// Decodes the list of containers. It does not say how often one was started anew.
///
/// # Errors
/// When it is none, or longer than [`MAX_CONTAINERS`].
pub fn list(body: &[u8], wanted: &Wanted, teller: Teller) -> Result<Vec<Info>, serde_json::Error> {
    let mut answer = serde_json::Deserializer::from_slice(body);
    let infos = List { wanted, teller }.deserialize(&mut answer)?;
    answer.end()?;
    Ok(infos)
}

/// Decodes what is said of one container.
///
/// # Errors
/// When it is none.
pub fn container(body: &[u8], wanted: &Wanted, teller: Teller) -> Result<Info, serde_json::Error> {
    let said: Container<'_> = serde_json::from_slice(body)?;
    let config = said.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let mut info = info(said.id, said.name, config.image, &labels, wanted, teller)?;
    info.attempt = info.attempt.or(said.restart_count);
    Ok(info)
}

/// The id of the container that a line of `/events` is about; `None` if it is no such line.
#[must_use]
pub fn change(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Change<'a> {
        #[serde(borrow, rename = "Actor")]
        actor: Actor<'a>,
    }
    #[derive(Deserialize)]
    struct Actor<'a> {
        #[serde(borrow, rename = "ID")]
        id: Text<'a>,
    }
    let change: Change<'_> = serde_json::from_slice(line).ok()?;
    let id = change.actor.id.0;
    is_id(&id).then(|| id.into_owned())
}

/// Why an engine says no, in its own words.
#[must_use]
pub fn refusal(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal<'a> {
        #[serde(borrow)]
        message: Text<'a>,
    }
    let refusal: Refusal<'_> = serde_json::from_slice(body).ok()?;
    some(&refusal.message.0)
}

/// A container in a list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow, default)]
    names: Option<First<Text<'a>>>,
    #[serde(borrow)]
    image: Option<Text<'a>>,
    #[serde(borrow)]
    labels: Option<Labels<'a>>,
}

/// One container by itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    restart_count: Option<u32>,
    #[serde(borrow)]
    config: Option<Config<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config<'a> {
    #[serde(borrow)]
    image: Option<Text<'a>>,
    #[serde(borrow)]
    labels: Option<Labels<'a>>,
}

fn info<E: serde::de::Error>(
    id: Text<'_>,
    name: Option<Text<'_>>,
    image: Option<Text<'_>>,
    labels: &Labels<'_>,
    wanted: &Wanted,
    teller: Teller,
) -> Result<Info, E> {
    if !is_id(&id.0) {
        return Err(E::custom("an id is not 64 hexadecimal digits"));
    }
    let kubernetes = |key: &str| labels.get(key).and_then(some);
    let sandbox = labels.get("io.kubernetes.docker.type") == Some("podsandbox");
    let own = name.and_then(|name| some(name.0.strip_prefix('/').unwrap_or(&name.0)));
    let attempt = labels.get("annotation.io.kubernetes.container.restartCount");
    Ok(Info {
        source: teller.source,
        runtime: Some(teller.runtime.to_owned()),
        name: if sandbox { None } else { kubernetes("io.kubernetes.container.name").or(own) },
        pod: kubernetes("io.kubernetes.pod.name"),
        namespace: kubernetes("io.kubernetes.pod.namespace"),
        pod_uid: kubernetes("io.kubernetes.pod.uid"),
        sandbox_id: if sandbox {
            Some(id.0.clone().into_owned())
        } else {
            kubernetes("io.kubernetes.sandbox.id")
        },
        id: id.0.into_owned(),
        image: image.and_then(|image| some(&image.0)),
        attempt: attempt.and_then(|attempt| attempt.parse().ok()),
        labels: wanted.labels(labels.all()),
        annotations: wanted.annotations(
            labels.all().filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION)?, value))),
        ),
    })
}

/// A text, borrowed from the answer if it stands there as it is.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Labels, those beyond [`MAX_LABELS_READ`] passed over.
#[derive(Default)]
struct Labels<'a>(BTreeMap<Cow<'a, str>, Cow<'a, str>>);

impl Labels<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| &**value)
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Labels<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl<'de> Visitor<'de> for Reads {
            type Value = Labels<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Labels<'de>, M::Error> {
                let mut labels = BTreeMap::new();
                while labels.len() < MAX_LABELS_READ
                    && let Some((Text(key), Text(value))) = map.next_entry()?
                {
                    labels.insert(key, value);
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Labels(labels))
            }
        }
        deserializer.deserialize_map(Reads)
    }
}

/// A component of an engine.
#[derive(Deserialize)]
struct Component<'a> {
    #[serde(borrow, rename = "Name")]
    name: Text<'a>,
}

/// The first of a list; the rest is passed over.
struct First<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reads<T> {
            type Value = First<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<First<T>, S::Error> {
                let first = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        deserializer.deserialize_seq(Reads(PhantomData))
    }
}

/// A list of containers, each made into what is kept of it before the next is read.
struct List<'w> {
    wanted: &'w Wanted,
    teller: Teller,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = Vec<Info>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Info>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = Vec<Info>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of containers")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Vec<Info>, S::Error> {
        let mut infos = Vec::new();
        while let Some(item) = list.next_element::<Item<'de>>()? {
            if infos.len() >= MAX_CONTAINERS {
                return Err(S::Error::custom(format!("more than {MAX_CONTAINERS} containers")));
            }
            let name = item.names.and_then(|First(name)| name);
            let labels = item.labels.unwrap_or_default();
            infos.push(info(item.id, name, item.image, &labels, self.wanted, self.teller)?);
        }
        Ok(infos)
    }
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
