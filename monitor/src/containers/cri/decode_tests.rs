//! Tests of [`decode`]: whole answers, lies, and random bytes.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::super::book::Weigh as _;
use super::super::worker::Error;
use super::super::{Info, MAX_LABELS, MAX_TEXT, Wanted};
use super::decode::*;
use super::made::*;

fn one(listed: Result<Listed, Error>) -> Info {
    let mut listed = listed.unwrap();
    assert_eq!((listed.items.len(), listed.refused), (1, 0), "{listed:?}");
    listed.items.remove(0).info
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn the_sandbox_knows_the_pod_best() {
    let containers = containers(list([web("c1", "s1").encode_to_vec()]), &wanted()).unwrap();
    let sandboxes = sandboxes(list([pod("s1").encode_to_vec()]), &wanted()).unwrap();
    let joined = join(containers, sandboxes);
    assert_eq!(joined.refused, 0);
    let web = Info {
        id: "c1".to_owned(),
        source: "cri",
        runtime: None,
        name: some("web"),
        pod: some("web-0"),
        namespace: some("shop"),
        pod_uid: some("u-1"),
        sandbox_id: some("s1"),
        image: some("web:1"),
        attempt: Some(2),
        labels: map(&[("app", "of the pod")]),
        annotations: map(&[("note", "n")]),
    };
    let sandbox =
        Info { id: "s1".to_owned(), name: None, image: None, attempt: Some(1), ..web.clone() };
    let infos: Vec<Info> = joined.items.into_iter().map(|item| item.info).collect();
    assert_eq!(infos, [web, sandbox]);
}

#[test]
fn the_labels_of_the_kubelet_serve_without_a_sandbox() {
    let info = one(containers(list([web("c1", "s1").encode_to_vec()]), &wanted()));
    assert_eq!((info.pod, info.namespace), (some("by label"), some("ns by label")));
    assert_eq!((info.pod_uid, info.name), (some("uid by label"), some("web")));
    let bare = FullContainer { metadata: None, image: None, ..web("c1", "") };
    let info = one(containers(list([bare.encode_to_vec()]), &Wanted::default()));
    assert_eq!((info.name, info.attempt), (some("web by label"), None));
    assert_eq!((info.image, info.sandbox_id), (None, None));
    assert!(info.labels.is_empty() && info.annotations.is_empty());
}

#[test]
fn what_is_not_told_is_absent() {
    let empty = FullContainer {
        metadata: Some(FullContainerMetadata { name: String::new(), attempt: 0 }),
        image: Some(FullImage { image: String::new(), user_specified: String::new() }),
        labels: map(&[("io.kubernetes.pod.name", "")]),
        ..web("c1", "")
    };
    let info = one(containers(list([empty.encode_to_vec()]), &wanted()));
    assert_eq!(
        info,
        Info { id: "c1".to_owned(), source: "cri", attempt: Some(0), ..Info::default() }
    );
}

#[test]
fn states_are_told() {
    for (state, live) in [(0, true), (1, true), (2, false), (3, true), (-7, true)] {
        let item = FullContainer { state, ..web("c1", "") };
        let listed = containers(list([item.encode_to_vec()]), &wanted()).unwrap();
        assert_eq!(listed.items[0].live, live, "{state}");
    }
    let unready = FullSandbox { state: 1, ..pod("s1") };
    let unready = sandboxes(list([unready.encode_to_vec()]), &wanted()).unwrap();
    assert!(!unready.items[0].live);
    // The pod of a container whose sandbox has just stopped is its pod still.
    let container = containers(list([web("c1", "s1").encode_to_vec()]), &wanted()).unwrap();
    let joined = join(container, unready);
    assert_eq!(joined.items.len(), 1);
    assert_eq!(joined.items[0].info.pod, some("web-0"));
}

#[test]
fn an_item_that_is_too_large_costs_itself_alone() {
    let large = FullContainer { image_ref: "x".repeat(MAX_ITEM), ..web("large", "") };
    let items = [web("c1", ""), large, web("c2", "")].map(|item| item.encode_to_vec());
    let listed = containers(list(items), &wanted()).unwrap();
    let ids: Vec<&str> = listed.items.iter().map(|item| item.info.id.as_str()).collect();
    assert_eq!((ids.as_slice(), listed.refused), (["c1", "c2"].as_slice(), 1));
}

#[test]
fn items_beyond_the_bound_are_counted_and_not_kept() {
    let id = |n: usize| FullContainer { id: format!("c{n}"), ..FullContainer::default() };
    let items = (0..MAX_ITEMS + 3).map(|n| id(n).encode_to_vec());
    let listed = containers(list(items), &wanted()).unwrap();
    assert_eq!((listed.items.len(), listed.refused), (MAX_ITEMS, 3));
    // Two bytes an item: the most that fit into an answer.
    let empty = containers(list((0..1_000_000).map(|_| Vec::new())), &wanted()).unwrap();
    assert_eq!((empty.items.len(), empty.refused), (0, 1_000_000));
}

#[test]
fn one_sandbox_with_large_labels_cannot_be_had_many_times() {
    let keys: Vec<String> = (0..MAX_LABELS).map(|n| format!("key{n}")).collect();
    let wanted = Wanted { labels: keys.iter().cloned().collect(), ..Wanted::default() };
    let labels = keys.iter().map(|key| (key.clone(), "v".repeat(1000))).collect();
    let sandbox = FullSandbox { labels, ..pod("s1") };
    let sandboxes = sandboxes(list([sandbox.encode_to_vec()]), &wanted).unwrap();
    let items = (0..MAX_ITEMS).map(|n| web(&format!("c{n}"), "s1").encode_to_vec());
    let joined = join(containers(list(items), &wanted).unwrap(), sandboxes);
    let bytes: usize = joined.items.iter().map(|item| item.info.bytes()).sum();
    assert!(bytes <= MAX_KEPT, "{bytes}");
    assert!(bytes > MAX_KEPT / 2, "the bound is what ended it: {bytes}");
    assert_eq!(joined.items.len() as u64 + joined.refused, MAX_ITEMS as u64 + 1);
}

#[test]
fn no_more_labels_than_allowed_and_none_longer() {
    let keys: Vec<String> = (0..MAX_LABELS + 9).map(|n| format!("key{n}")).collect();
    let wanted = Wanted { labels: keys.iter().cloned().collect(), ..Wanted::default() };
    let labels = keys.iter().map(|key| (key.clone(), "ä".repeat(1000))).collect();
    let item = FullContainer { labels, ..web("c1", "") };
    let info = one(containers(list([item.encode_to_vec()]), &wanted));
    assert_eq!(info.labels.len(), MAX_LABELS);
    assert!(info.labels.values().all(|value| *value == "ä".repeat(MAX_TEXT / 2)));
}

#[test]
fn ids_that_are_none_are_refused() {
    let long = "a".repeat(MAX_ID + 1);
    for id in ["", "a/b", "a b", "..\n", "ä", long.as_str()] {
        let listed = containers(list([web(id, "s1").encode_to_vec()]), &wanted()).unwrap();
        assert_eq!((listed.items.len(), listed.refused), (0, 1), "{id:?}");
        let listed = sandboxes(list([pod(id).encode_to_vec()]), &wanted()).unwrap();
        assert_eq!((listed.items.len(), listed.refused), (0, 1), "{id:?}");
        let info = one(containers(list([web("c1", id).encode_to_vec()]), &wanted()));
        assert_eq!(info.sandbox_id, None, "{id:?}");
    }
}

#[test]
fn wrong_types_cost_the_item_alone() {
    // The id as a number; metadata as a text that is no message; a label that is no entry.
    let mut number = BytesMut::new();
    encode_key(1, WireType::Varint, &mut number);
    encode_varint(7, &mut number);
    let mut metadata = BytesMut::from(&web("c1", "").encode_to_vec()[..]);
    field(&mut metadata, 3, b"\xff\xff\xff");
    let mut label = BytesMut::from(&web("c1", "").encode_to_vec()[..]);
    field(&mut label, 8, b"app");
    for wrong in [number, metadata, label] {
        let listed = containers(list([wrong.to_vec(), web("ok", "").encode_to_vec()]), &wanted());
        let listed = listed.unwrap();
        assert_eq!((listed.items.len(), listed.refused), (1, 1), "{wrong:?}");
        assert_eq!(listed.items[0].info.id, "ok");
    }
}

#[test]
fn a_text_that_is_not_utf8_costs_no_more_than_itself() {
    let mut item =
        BytesMut::from(&FullContainer { metadata: None, ..web("c1", "") }.encode_to_vec()[..]);
    let mut metadata = BytesMut::new();
    field(&mut metadata, 1, b"we\xffb");
    field(&mut item, 3, &metadata);
    for (key, value) in [(&b"app"[..], &b"\xfe"[..]), (b"\xff", b"x")] {
        let mut entry = BytesMut::new();
        field(&mut entry, 1, key);
        field(&mut entry, 2, value);
        field(&mut item, 8, &entry);
    }
    let info = one(containers(list([item.to_vec()]), &wanted()));
    assert_eq!(info.name, some("we\\xffb"));
    assert_eq!(info.labels, map(&[("app", "\\xfe")]));
}

#[test]
fn a_list_that_ends_too_early_is_an_error() {
    let whole = list([web("c1", "").encode_to_vec()]);
    let cut = whole.slice(..whole.len() - 1);
    assert!(matches!(containers(cut, &wanted()), Err(Error::Malformed(_))));
    // A length of 2^64 - 1.
    let mut endless = BytesMut::from(&b"\x0a"[..]);
    encode_varint(u64::MAX, &mut endless);
    assert!(matches!(sandboxes(endless.freeze(), &wanted()), Err(Error::Malformed(_))));
    // Groups in groups, as deep as an answer may be long.
    let deep = Bytes::from(vec![0x13; 1 << 20]);
    assert!(matches!(containers(deep, &wanted()), Err(Error::Malformed(_))));
}

#[test]
fn unknown_fields_are_passed_over() {
    let mut answer = BytesMut::new();
    encode_key(9, WireType::Varint, &mut answer);
    encode_varint(u64::MAX, &mut answer);
    field(&mut answer, 2, b"\xff\xff");
    answer.put_slice(&list([web("c1", "").encode_to_vec()]));
    assert_eq!(one(containers(answer.freeze(), &wanted())).id, "c1");
}

#[test]
fn a_version_is_words_for_people_and_a_word_for_ids() {
    let answer = |name: &[u8], number: &[u8]| {
        let mut answer = BytesMut::new();
        field(&mut answer, 2, name);
        field(&mut answer, 3, number);
        version(answer.freeze()).unwrap()
    };
    let containerd = answer(b"containerd", b"v2.1.0");
    assert_eq!((containerd.name, containerd.version), (some("containerd"), some("v2.1.0")));
    assert_eq!(answer(b"a://b\n", b"").name, None);
    assert!(matches!(version(Bytes::from_static(b"\xff")), Err(Error::Malformed(_))));
}

#[test]
fn only_what_is_made_or_started_is_news() {
    let message = |id: &[u8], kind: u64| {
        let mut message = BytesMut::new();
        field(&mut message, 1, id);
        encode_key(2, WireType::Varint, &mut message);
        encode_varint(kind, &mut message);
        field(&mut message, 4, &[0xff; 100]);
        event(message.freeze())
    };
    assert_eq!(message(b"c1", 0).unwrap(), some("c1"));
    assert_eq!(message(b"c1", 1).unwrap(), some("c1"));
    assert_eq!(message(b"c1", 2).unwrap(), None);
    assert_eq!(message(b"c1", u64::MAX).unwrap(), None);
    assert!(matches!(message(b"a/b", 0), Err(Error::Malformed(_))));
}

/// What holds of whatever is kept.
fn within_bounds(listed: &Listed) {
    assert!(listed.items.len() <= MAX_ITEMS);
    for Item { info, .. } in &listed.items {
        let texts = [&info.name, &info.pod, &info.namespace, &info.pod_uid, &info.image];
        for text in texts.into_iter().flatten() {
            assert!((1..=MAX_TEXT).contains(&text.len()), "{info:?}");
        }
        assert!((1..=MAX_ID).contains(&info.id.len()) && info.labels.len() <= MAX_LABELS);
        assert!(
            info.labels
                .values()
                .chain(info.annotations.values())
                .all(|text| text.len() <= MAX_TEXT)
        );
        assert!(
            info.labels.keys().all(|key| key == "app")
                && info.annotations.keys().all(|key| key == "note")
        );
    }
}

fn everything(bytes: Bytes) {
    let lists = [containers(bytes.clone(), &wanted()), sandboxes(bytes.clone(), &wanted())];
    for listed in lists.iter().flatten() {
        within_bounds(listed);
    }
    if let [Ok(containers), Ok(sandboxes)] = lists {
        within_bounds(&join(containers, sandboxes));
    }
    let _ = (version(bytes.clone()), event(bytes));
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    let key = prop_oneof![Just("app".to_owned()), Just("note".to_owned()), ".{0,20}"];
    prop::collection::btree_map(key, ".{0,300}", 0..4)
}

prop_compose! {
    fn any_container()(
        id in "[a-f0-9]{1,64}", sandbox_id in "[a-f0-9]{0,64}", name in ".{0,300}", attempt: u32, image in ".{0,300}",
        user_specified in ".{0,20}", state in -1..5, created_at: i64, labels in texts(), annotations in texts(),
    ) -> FullContainer {
        FullContainer {
            id, sandbox_id, state, created_at, labels, annotations,
            metadata: Some(FullContainerMetadata { name, attempt }),
            image: Some(FullImage { image, user_specified }),
            image_ref: String::new(),
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_are_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        everything(bytes.into());
    }

    #[test]
    fn broken_answers_are_no_harm(
        items in prop::collection::vec(any_container(), 0..4),
        at in any::<prop::sample::Index>(), with: u8, cut in any::<prop::sample::Index>(),
    ) {
        let whole = list(items.iter().map(Message::encode_to_vec));
        let mut broken = whole.to_vec();
        if !broken.is_empty() {
            let at = at.index(broken.len());
            broken[at] = with;
            broken.truncate(1 + cut.index(broken.len()));
        }
        everything(broken.into());
    }

    #[test]
    fn whole_answers_are_kept_whole(items in prop::collection::vec(any_container(), 0..6)) {
        let listed = containers(list(items.iter().map(Message::encode_to_vec)), &wanted()).unwrap();
        within_bounds(&listed);
        prop_assert_eq!((listed.items.len(), listed.refused), (items.len(), 0));
        for (kept, item) in listed.items.iter().zip(&items) {
            prop_assert_eq!(&kept.info.id, &item.id);
            prop_assert_eq!(kept.info.attempt, item.metadata.as_ref().map(|metadata| metadata.attempt));
            let name = &item.metadata.as_ref().unwrap().name;
            prop_assert_eq!(kept.info.name.as_deref().unwrap_or(""), super::super::cut(name));
            let app = item.labels.get("app").map(|value| super::super::cut(value));
            prop_assert_eq!(kept.info.labels.get("app"), app.as_ref());
        }
    }
}
