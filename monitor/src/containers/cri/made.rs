//! Answers as a runtime makes them, for tests: messages with the fields that are not read too.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::super::Wanted;

/// `Container`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FullContainer {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub(super) metadata: Option<FullContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    pub(super) image: Option<FullImage>,
    #[prost(string, tag = "5")]
    pub(super) image_ref: String,
    #[prost(int32, tag = "6")]
    pub(super) state: i32,
    #[prost(int64, tag = "7")]
    pub(super) created_at: i64,
    #[prost(btree_map = "string, string", tag = "8")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "9")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FullContainerMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint32, tag = "2")]
    pub(super) attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FullImage {
    #[prost(string, tag = "1")]
    pub(super) image: String,
    #[prost(string, tag = "18")]
    pub(super) user_specified: String,
}

/// `PodSandbox`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FullSandbox {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<FullSandboxMetadata>,
    #[prost(int32, tag = "3")]
    pub(super) state: i32,
    #[prost(int64, tag = "4")]
    pub(super) created_at: i64,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FullSandboxMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
    #[prost(uint32, tag = "4")]
    pub(super) attempt: u32,
}

/// Puts a field that has a length.
pub(super) fn field(to: &mut BytesMut, tag: u32, bytes: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(bytes.len() as u64, to);
    to.put_slice(bytes);
}

/// A list of these items.
pub(super) fn list(items: impl IntoIterator<Item = Vec<u8>>) -> Bytes {
    let mut list = BytesMut::new();
    items.into_iter().for_each(|item| field(&mut list, 1, &item));
    list.freeze()
}

pub(super) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn wanted() -> Wanted {
    Wanted { labels: ["app".to_owned()].into(), annotations: ["note".to_owned()].into() }
}

pub(super) fn web(id: &str, sandbox: &str) -> FullContainer {
    FullContainer {
        id: id.to_owned(),
        sandbox_id: sandbox.to_owned(),
        metadata: Some(FullContainerMetadata { name: "web".to_owned(), attempt: 2 }),
        image: Some(FullImage { image: "sha256:0".to_owned(), user_specified: "web:1".to_owned() }),
        image_ref: "sha256:0".to_owned(),
        state: 1,
        created_at: -1,
        labels: map(&[
            ("app", "of the container"),
            ("io.kubernetes.pod.name", "by label"),
            ("io.kubernetes.pod.namespace", "ns by label"),
            ("io.kubernetes.pod.uid", "uid by label"),
            ("io.kubernetes.container.name", "web by label"),
        ]),
        annotations: map(&[("secret", "x")]),
    }
}

pub(super) fn pod(id: &str) -> FullSandbox {
    FullSandbox {
        id: id.to_owned(),
        metadata: Some(FullSandboxMetadata {
            name: "web-0".to_owned(),
            uid: "u-1".to_owned(),
            namespace: "shop".to_owned(),
            attempt: 1,
        }),
        state: 0,
        created_at: 7,
        labels: map(&[("app", "of the pod"), ("other", "x")]),
        annotations: map(&[("note", "n")]),
    }
}
