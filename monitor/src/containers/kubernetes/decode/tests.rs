//! What is read of good answers, and that no answer does harm.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn wanted(keys: &[&str]) -> Wanted {
    let keys: BTreeSet<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    Wanted { labels: keys.clone(), annotations: keys }
}

fn owner_of(owners: Value) -> Option<String> {
    let answer = json!({"metadata": {"uid": "u", "ownerReferences": owners}}).to_string();
    metadata(answer.as_bytes(), &wanted(&[])).unwrap().owner.map(|owner| owner.name)
}

fn reference(name: &str, controller: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "K", "name": name, "uid": "x", "controller": controller})
}

#[test]
fn the_controller_is_the_owner() {
    let (no, yes) = (json!(false), json!(true));
    assert_eq!(owner_of(json!([])), None);
    assert_eq!(owner_of(json!(null)), None);
    assert_eq!(owner_of(json!([reference("a", no.clone())])).as_deref(), Some("a"));
    assert_eq!(owner_of(json!([reference("a", json!(null))])).as_deref(), Some("a"));
    // Of several none of which is in charge, nobody can say which it is.
    assert_eq!(owner_of(json!([reference("a", no.clone()), reference("b", no.clone())])), None);
    assert_eq!(
        owner_of(json!([
            reference("a", no.clone()),
            reference("b", yes.clone()),
            reference("c", no)
        ]))
        .as_deref(),
        Some("b")
    );
    // The API allows one only; the first is taken.
    assert_eq!(
        owner_of(json!([reference("a", yes.clone()), reference("b", yes)])).as_deref(),
        Some("a")
    );
    // One without a name is none.
    assert_eq!(owner_of(json!([reference("", json!(true))])), None);
}

#[test]
fn what_is_absent_or_null_is_absent() {
    let wanted = wanted(&["app"]);
    for answer in [
        r#"{"metadata":{"uid":"u"}}"#,
        r#"{"metadata":{"uid":"u","labels":null,"annotations":null,"ownerReferences":null}}"#,
        r#" {"kind":"X","metadata":{"uid":"u","labels":{"x":null},"name":{"not":"read"}},"spec":[1]} "#,
    ] {
        let read = metadata(answer.as_bytes(), &wanted).unwrap();
        assert_eq!(read, Metadata { uid: "u".to_owned(), ..Metadata::default() }, "{answer}");
    }
    for answer in ["", "null", "{}", "7", r#"{"metadata":null}"#, r#"{"metadata":{"uid":""}}"#] {
        assert!(metadata(answer.as_bytes(), &wanted).is_err(), "{answer}");
    }
    assert!(metadata(br#"{"metadata":{"uid":"u"}} x"#, &wanted).is_err());
    assert!(metadata(b"{\"metadata\":{\"uid\":\"\xff\"}}", &wanted).is_err());
}

#[test]
fn texts_and_their_number_are_bounded() {
    let keys: Vec<String> = (0..200).map(|n| format!("k{n:03}")).collect();
    let labels: BTreeMap<&str, String> =
        keys.iter().map(|key| (key.as_str(), "ä".repeat(1000))).collect();
    let annotations: BTreeMap<&str, &str> =
        keys.iter().map(|key| (key.as_str(), "v")).chain([(CONFIG_HASH, "h")]).collect();
    let answer = json!({"metadata": {"uid": "u".repeat(1000), "labels": labels, "annotations": annotations}});
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let read = metadata(answer.to_string().as_bytes(), &wanted(&keys)).unwrap();
    assert_eq!((read.uid.len(), read.labels.len(), read.annotations.len()), (256, 64, 64));
    assert!(read.labels.values().all(|text| text.len() == 256));
    // It is there whatever else there is.
    assert_eq!(read.config_hash.as_deref(), Some("h"));
}

#[test]
fn a_version_for_people() {
    assert_eq!(version(br#"{"gitVersion":"v1.33.1+k3s1","x":[]}"#).unwrap(), "v1.33.1+k3s1");
    assert_eq!(version(br#"{"gitVersion":"a\nb"}"#).unwrap(), "a\\nb");
    assert!(version(b"{}").is_err() && version(br#"{"gitVersion":1}"#).is_err());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "metadata",
            "uid",
            "labels",
            "annotations",
            "ownerReferences",
            "apiVersion",
            "kind",
            "name",
            "controller",
            "app",
            CONFIG_HASH,
        ])
        .prop_map(str::to_owned),
        ".{0,8}",
    ]
}

proptest! {
    #[test]
    fn bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = metadata(&bytes, &wanted(&["app"]));
        let _ = version(&bytes);
    }

    #[test]
    fn json_of_any_form_does_no_harm(value in value()) {
        let wanted = wanted(&["app"]);
        let wrapped = json!({"metadata": value});
        for answer in [value.to_string(), wrapped.to_string()] {
            if let Ok(read) = metadata(answer.as_bytes(), &wanted) {
                prop_assert!(!read.uid.is_empty());
                prop_assert!(read.labels.keys().chain(read.annotations.keys()).all(|key| key == "app"));
            }
        }
    }

    #[test]
    fn a_truncated_answer_is_none(cut in 0..200_usize) {
        let answer = json!({"metadata": {"labels": {"app": "x".repeat(150)}, "uid": "u"}}).to_string();
        prop_assert!(metadata(&answer.as_bytes()[..cut.min(answer.len() - 1)], &wanted(&["app"])).is_err());
    }

    #[test]
    fn what_is_said_is_read(
        uid in "[a-f0-9-]{1,36}", name in "\\PC{1,60}", text in "\\PC{0,60}", more in value(), escaped in any::<bool>()
    ) {
        let answer = json!({"x": more, "metadata": {
            "zzz": more, "uid": uid, "labels": {"app": text, "no": text},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "r", "controller": true}],
        }});
        let mut answer = answer.to_string();
        if escaped {
            // The same text in another spelling, which cannot be borrowed.
            answer = answer.replace("\"app\"", "\"\\u0061pp\"");
        }
        let read = metadata(answer.as_bytes(), &wanted(&["app"])).unwrap();
        prop_assert_eq!(read.uid, uid);
        prop_assert_eq!(read.labels, BTreeMap::from([("app".to_owned(), cut(&text))]));
        let owner = read.owner.unwrap();
        prop_assert_eq!((owner.kind.as_str(), owner.name), ("ReplicaSet", cut(&name)));
    }
}
