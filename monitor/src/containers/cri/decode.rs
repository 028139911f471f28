//! Answers of a runtime, from bytes to what is kept of them. Pure, and made for a runtime that lies: an answer is walked item by item where it lies,
//! nothing of an item outlives it but texts that are cut, and the sum of those is bounded too.
//!
//! The numbers of the fields are those of Kubernetes' `cri-api`, `pkg/apis/runtime/v1/api.proto`.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};

use super::super::book::Weigh as _;
use super::super::worker::Error;
use super::super::{Info, MAX_LABELS, MAX_TEXT, Wanted, cut};
use crate::text;

/// Largest item of a list that is read, in bytes. Kubernetes allows a pod annotations of 256 KiB in all, beside its labels.
pub const MAX_ITEM: usize = 512 << 10;
/// Items of a list that are read.
pub const MAX_ITEMS: usize = 16_384;
/// What is kept of one list, in bytes, roughly.
pub const MAX_KEPT: usize = 16 << 20;
/// Longest id, in bytes. Runtimes make them of 64 hex digits; a longer one is nobody's, and a cut one would be another's.
pub const MAX_ID: usize = 128;

/// Labels by which the kubelet tells a container's pod.
const POD_NAME: &[u8] = b"io.kubernetes.pod.name";
const POD_NAMESPACE: &[u8] = b"io.kubernetes.pod.namespace";
const POD_UID: &[u8] = b"io.kubernetes.pod.uid";
const CONTAINER_NAME: &[u8] = b"io.kubernetes.container.name";

/// `ContainerState.CONTAINER_EXITED`.
const EXITED: i32 = 2;
/// `PodSandboxState.SANDBOX_READY`.
const READY: i32 = 0;
/// `ContainerEventType.CONTAINER_STARTED_EVENT`, above `CONTAINER_CREATED_EVENT`.
const STARTED: i32 = 1;

/// A list, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its items.
    pub items: Vec<Item>,
    /// Items that were not taken: too large, one too many, not to be read, or without an id.
    pub refused: u64,
}

/// A container or a sandbox.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    /// What is kept of it.
    pub info: Info,
    /// Whether it is there still: a container that has not exited, a sandbox that is ready.
    pub live: bool,
}

/// What a runtime says of itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    /// Its name, which Kubernetes puts before `://` in ids of containers.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
}

/// Of `ContainerMetadata` and `PodSandboxMetadata`. Texts are bytes here and below, so that one that is not UTF-8 costs no more than itself.
#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxMetadata {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    uid: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    namespace: Bytes,
    #[prost(uint32, tag = "4")]
    attempt: u32,
}

/// Of `ImageSpec`.
#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(bytes = "bytes", tag = "1")]
    image: Bytes,
    #[prost(bytes = "bytes", tag = "18")]
    user_specified: Bytes,
}

/// Of `Container`, without its maps.
#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    sandbox_id: Bytes,
    #[prost(message, optional, tag = "3")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    image: Option<Image>,
    #[prost(int32, tag = "6")]
    state: i32,
}

const CONTAINER_LABELS: u32 = 8;
const CONTAINER_ANNOTATIONS: u32 = 9;

/// Of `PodSandbox`, without its maps.
#[derive(Clone, PartialEq, Message)]
struct Sandbox {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(message, optional, tag = "2")]
    metadata: Option<SandboxMetadata>,
    #[prost(int32, tag = "3")]
    state: i32,
}

const SANDBOX_LABELS: u32 = 5;
const SANDBOX_ANNOTATIONS: u32 = 6;

/// An entry of a `map<string, string>`.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// Of `VersionResponse`.
#[derive(Clone, PartialEq, Message)]
struct VersionResponse {
    #[prost(bytes = "bytes", tag = "2")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    version: Bytes,
}

/// Of `ContainerEventResponse`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(bytes = "bytes", tag = "1")]
    container_id: Bytes,
    #[prost(int32, tag = "2")]
    kind: i32,
}

/// A `ListContainersResponse`. Pods are filled in from the kubelet's labels.
///
/// # Errors
///
/// The list itself cannot be walked to its end.
pub fn containers(answer: Bytes, wanted: &Wanted) -> Result<Listed, Error> {
    list(answer, |item| container(item, wanted))
}

/// A `ListPodSandboxResponse`. A sandbox has no [`Info::name`]: its container is nobody's but the runtime's.
///
/// # Errors
///
/// The list itself cannot be walked to its end.
pub fn sandboxes(answer: Bytes, wanted: &Wanted) -> Result<Listed, Error> {
    list(answer, |item| sandbox(item, wanted))
}

/// A `VersionResponse`.
///
/// # Errors
///
/// It cannot be read.
pub fn version(answer: Bytes) -> Result<Version, Error> {
    let answer = VersionResponse::decode(answer).map_err(malformed)?;
    // It becomes part of ids: a word, or nothing.
    let word =
        |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    Ok(Version { name: text_of(&answer.name).filter(word), version: text_of(&answer.version) })
}

/// A `ContainerEventResponse`: the id of the container or sandbox that was made or started; `None` for other events.
///
/// # Errors
///
/// It cannot be read.
pub fn event(message: Bytes) -> Result<Option<String>, Error> {
    let event = Event::decode(message).map_err(malformed)?;
    if !(0..=STARTED).contains(&event.kind) {
        return Ok(None);
    }
    id_of(&event.container_id)
        .map(Some)
        .ok_or_else(|| Error::Malformed("an event without an id".to_owned()))
}

/// Gives each container the names and labels of its pod's sandbox, and adds the sandboxes that are ready. What goes beyond [`MAX_ITEMS`] or
/// [`MAX_KEPT`] is refused: many containers may point to one sandbox with large labels.
#[must_use]
pub fn join(containers: Listed, sandboxes: Listed) -> Listed {
    let mut joined = Kept {
        listed: Listed { items: Vec::new(), refused: containers.refused + sandboxes.refused },
        bytes: 0,
    };
    let by_id: HashMap<&str, &Info> =
        sandboxes.items.iter().map(|sandbox| (sandbox.info.id.as_str(), &sandbox.info)).collect();
    for mut container in containers.items {
        let sandbox = container.info.sandbox_id.as_deref().and_then(|id| by_id.get(id));
        if let Some(sandbox) = sandbox {
            lend(&mut container.info, sandbox);
        }
        joined.add(container);
    }
    drop(by_id);
    sandboxes
        .items
        .into_iter()
        .filter(|sandbox| sandbox.live)
        .for_each(|sandbox| joined.add(sandbox));
    joined.listed
}

/// What a sandbox says of its pod goes before what a container's labels say.
pub(super) fn lend(container: &mut Info, sandbox: &Info) {
    let names = [
        (&mut container.pod, &sandbox.pod),
        (&mut container.namespace, &sandbox.namespace),
        (&mut container.pod_uid, &sandbox.pod_uid),
    ];
    for (of_container, of_sandbox) in names {
        if of_sandbox.is_some() {
            of_container.clone_from(of_sandbox);
        }
    }
    over(&mut container.labels, &sandbox.labels);
    over(&mut container.annotations, &sandbox.annotations);
}

fn over(below: &mut BTreeMap<String, String>, above: &BTreeMap<String, String>) {
    for (key, value) in above {
        if below.len() < MAX_LABELS || below.contains_key(key) {
            below.insert(key.clone(), value.clone());
        }
    }
}

/// A list that stays within its bounds.
#[derive(Default)]
struct Kept {
    listed: Listed,
    bytes: usize,
}

impl Kept {
    fn add(&mut self, item: Item) {
        let bytes = item.info.bytes();
        if self.listed.items.len() < MAX_ITEMS && self.bytes + bytes <= MAX_KEPT {
            self.bytes += bytes;
            self.listed.items.push(item);
        } else {
            self.listed.refused += 1;
        }
    }
}

/// Both lists have their items in field 1.
fn list(
    answer: Bytes,
    read: impl Fn(Bytes) -> Result<Option<Item>, Error>,
) -> Result<Listed, Error> {
    let mut kept = Kept::default();
    let mut seen = 0_usize;
    let walked = fields(answer, |tag, item| {
        if tag != 1 {
            return;
        }
        seen += 1;
        let read = if item.len() <= MAX_ITEM && seen <= MAX_ITEMS { read(item) } else { Ok(None) };
        match read {
            Ok(Some(item)) => kept.add(item),
            Ok(None) | Err(_) => kept.listed.refused += 1,
        }
    });
    walked?;
    Ok(kept.listed)
}

fn container(item: Bytes, wanted: &Wanted) -> Result<Option<Item>, Error> {
    let container = Container::decode(item.clone()).map_err(malformed)?;
    let Some(id) = id_of(&container.id) else { return Ok(None) };
    let mut info = Info { id, source: super::NAME, ..Info::default() };
    maps(&mut info, item, [CONTAINER_LABELS, CONTAINER_ANNOTATIONS], wanted)?;
    info.sandbox_id = id_of(&container.sandbox_id);
    if let Some(metadata) = container.metadata {
        info.name = text_of(&metadata.name).or(info.name);
        info.attempt = Some(metadata.attempt);
    }
    // Without the user's own words the first is all there is; the kubelet puts the image's id there.
    info.image = container
        .image
        .and_then(|image| text_of(&image.user_specified).or_else(|| text_of(&image.image)));
    Ok(Some(Item { info, live: container.state != EXITED }))
}

fn sandbox(item: Bytes, wanted: &Wanted) -> Result<Option<Item>, Error> {
    let sandbox = Sandbox::decode(item.clone()).map_err(malformed)?;
    let Some(id) = id_of(&sandbox.id) else { return Ok(None) };
    let mut info =
        Info { sandbox_id: Some(id.clone()), id, source: super::NAME, ..Info::default() };
    maps(&mut info, item, [SANDBOX_LABELS, SANDBOX_ANNOTATIONS], wanted)?;
    info.name = None;
    if let Some(metadata) = sandbox.metadata {
        info.pod = text_of(&metadata.name).or(info.pod);
        info.namespace = text_of(&metadata.namespace).or(info.namespace);
        info.pod_uid = text_of(&metadata.uid).or(info.pod_uid);
        info.attempt = Some(metadata.attempt);
    }
    Ok(Some(Item { info, live: sandbox.state == READY }))
}

/// Labels and annotations that are wanted, and the kubelet's labels as names.
fn maps(
    info: &mut Info,
    item: Bytes,
    [labels, annotations]: [u32; 2],
    wanted: &Wanted,
) -> Result<(), Error> {
    let mut bad = None;
    fields(item, |tag, entry| {
        let (keys, map) = if tag == labels {
            (&wanted.labels, &mut info.labels)
        } else if tag == annotations {
            (&wanted.annotations, &mut info.annotations)
        } else {
            return;
        };
        let Entry { key, value } = match Entry::decode(entry) {
            Ok(entry) => entry,
            Err(error) => {
                bad.get_or_insert(malformed(error));
                return;
            }
        };
        if let Some(key) = std::str::from_utf8(&key).ok().filter(|key| keys.contains(*key))
            && (map.len() < MAX_LABELS || map.contains_key(key))
        {
            map.insert(key.to_owned(), text_of(&value).unwrap_or_default());
        }
        if tag == labels {
            let name = match &*key {
                POD_NAME => &mut info.pod,
                POD_NAMESPACE => &mut info.namespace,
                POD_UID => &mut info.pod_uid,
                CONTAINER_NAME => &mut info.name,
                _ => return,
            };
            *name = text_of(&value);
        }
    })?;
    bad.map_or(Ok(()), Err)
}

/// Walks the fields of a message that have a length; others are passed over.
fn fields(mut message: Bytes, mut each: impl FnMut(u32, Bytes)) -> Result<(), Error> {
    while !message.is_empty() {
        let (tag, wire) = decode_key(&mut message).map_err(malformed)?;
        if wire == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut message).map_err(malformed)?)
                .unwrap_or(usize::MAX);
            if length > message.len() {
                return Err(Error::Malformed("a field is longer than its message".to_owned()));
            }
            each(tag, message.split_to(length));
        } else {
            skip_field(wire, tag, &mut message, DecodeContext::default()).map_err(malformed)?;
        }
    }
    Ok(())
}

/// A text that is not empty, cut to [`MAX_TEXT`] bytes.
fn text_of(bytes: &[u8]) -> Option<String> {
    // A few bytes more than are kept, so that no character is broken before the cut.
    let few = bytes.get(..MAX_TEXT + 4).unwrap_or(bytes);
    (!few.is_empty()).then(|| cut(&text::from_bytes(few)))
}

/// An id, if it is one.
pub(super) fn id_of(bytes: &[u8]) -> Option<String> {
    let id = std::str::from_utf8(bytes).ok()?;
    let of_an_id = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    ((1..=MAX_ID).contains(&id.len()) && id.bytes().all(of_an_id)).then(|| id.to_owned())
}

fn malformed(error: DecodeError) -> Error {
    Error::Malformed(error.to_string())
}
