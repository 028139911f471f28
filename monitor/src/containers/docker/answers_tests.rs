//! Answers as real engines gave them, cut down to what is around the fields that are read; and hostile ones.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::containers::MAX_TEXT;

const ID: &str = "6664bf88bf5c22c9729beaaa82e383a269f14cfe258fcb91ab77e3fc01a96cb7";
const TELLER: Teller = Teller { source: "docker", runtime: "docker" };

fn wanted() -> Wanted {
    Wanted {
        labels: ["com.docker.compose.project".to_owned()].into(),
        annotations: ["build-url".to_owned()].into(),
    }
}

fn list_of(answer: &Value) -> Result<Vec<Info>, serde_json::Error> {
    list(answer.to_string().as_bytes(), &wanted(), TELLER)
}

fn one(answer: &Value) -> Result<Info, serde_json::Error> {
    container(answer.to_string().as_bytes(), &wanted(), TELLER)
}

#[test]
fn versions_of_both() {
    let docker = br#"{"Platform":{"Name":""},"Components":[{"Name":"Engine","Version":"20.10.24+dfsg1","Details":{"Os":"linux"}},{"Name":"runc"}],"Version":"20.10.24+dfsg1","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#;
    let version = version(docker).unwrap();
    assert_eq!(version.text, "Docker 20.10.24+dfsg1, API 1.41");
    assert_eq!(version.runtime, Some("docker"));
    let podman = br#"{"Components":[{"Name":"Podman Engine","Version":"4.3.1"},{"Name":"Conmon"}],"Version":"4.3.1","ApiVersion":"1.41"}"#;
    let version = super::version(podman).unwrap();
    assert_eq!(
        (version.text.as_str(), version.runtime),
        ("Podman 4.3.1, API 1.41", Some("podman"))
    );
    let old = super::version(br#"{"Version":"1.11"}"#).unwrap();
    assert_eq!(old, Version { text: "an engine 1.11".to_owned(), runtime: None });
    assert!(super::version(b"{}").is_err());
}

#[test]
fn a_container_in_a_list_and_by_itself() {
    let labels = json!({"com.docker.compose.project": "shop", "secret": "x"});
    let listed = list_of(&json!([{
        "Id": ID, "Names": ["/one", "/other/alias"], "Image": "sha256:2e5d", "ImageID": "sha256:2e5d", "Created": 1_795_625_159,
        "Ports": [], "Labels": labels, "State": "running", "HostConfig": {"NetworkMode": "host"}, "Mounts": [],
    }]));
    let expected = Info {
        id: ID.to_owned(),
        source: "docker",
        runtime: Some("docker".to_owned()),
        name: Some("one".to_owned()),
        image: Some("sha256:2e5d".to_owned()),
        labels: [("com.docker.compose.project".to_owned(), "shop".to_owned())].into(),
        ..Info::default()
    };
    assert_eq!(listed.unwrap(), std::slice::from_ref(&expected));
    let alone = one(&json!({
        "Id": ID, "Name": "/one", "RestartCount": 3, "Image": "sha256:2e5d", "State": {"Pid": 1, "Health": {"Log": null}},
        "Config": {"Image": "kw/busybox:1", "Labels": labels, "Env": ["A=b"]},
    }));
    let expected = Info { image: Some("kw/busybox:1".to_owned()), attempt: Some(3), ..expected };
    assert_eq!(alone.unwrap(), expected);
}

#[test]
fn what_is_not_said_is_absent() {
    let bare = Info {
        id: ID.to_owned(),
        source: "docker",
        runtime: Some("docker".to_owned()),
        ..Info::default()
    };
    assert_eq!(list_of(&json!([{"Id": ID}])).unwrap(), std::slice::from_ref(&bare));
    let empty =
        json!([{"Id": ID, "Names": null, "Image": "", "Labels": null}, {"Id": ID, "Names": []}]);
    assert_eq!(list_of(&empty).unwrap(), [bare.clone(), bare.clone()]);
    assert_eq!(one(&json!({"Id": ID, "Name": "/", "Config": null})).unwrap(), bare);
    assert_eq!(list_of(&json!([])).unwrap(), []);
}

#[test]
fn kubernetes_by_the_labels_of_cri_dockerd() {
    let labels = |kind: &str| {
        json!({
            "io.kubernetes.docker.type": kind, "io.kubernetes.container.name": if kind == "container" { "app" } else { "POD" },
            "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "u-1",
            "io.kubernetes.sandbox.id": "5a", "annotation.io.kubernetes.container.restartCount": "2", "annotation.build-url": "http://b/1",
            "annotation.other": "x",
        })
    };
    let answer = json!({"Id": ID, "Name": "/k8s_app_web-0_shop_u-1_2", "RestartCount": 0, "Config": {"Labels": labels("container")}});
    let info = one(&answer).unwrap();
    assert_eq!(info.name.as_deref(), Some("app"));
    assert_eq!(info.pod.as_deref(), Some("web-0"));
    assert_eq!(info.namespace.as_deref(), Some("shop"));
    assert_eq!(info.pod_uid.as_deref(), Some("u-1"));
    assert_eq!(info.sandbox_id.as_deref(), Some("5a"));
    assert_eq!(info.attempt, Some(2), "Kubernetes makes a new container for each attempt");
    assert_eq!(info.annotations, [("build-url".to_owned(), "http://b/1".to_owned())].into());
    let sandbox = one(
        &json!({"Id": ID, "Name": "/k8s_POD_web-0", "Config": {"Labels": labels("podsandbox")}}),
    );
    let sandbox = sandbox.unwrap();
    assert_eq!((sandbox.name, sandbox.sandbox_id.as_deref()), (None, Some(ID)));
}

#[test]
fn texts_are_cut_and_labels_counted() {
    let long = "é".repeat(MAX_TEXT);
    let answer = json!({"Id": ID, "Name": long, "Config": {"Image": long, "Labels": {"com.docker.compose.project": long}}});
    let info = one(&answer).unwrap();
    let most = "é".repeat(MAX_TEXT / 2);
    assert_eq!(info.name.as_deref(), Some(most.as_str()));
    assert_eq!(info.image.as_deref(), Some(most.as_str()));
    assert_eq!(info.labels["com.docker.compose.project"], most);
    let many: serde_json::Map<String, Value> =
        (0..2 * MAX_LABELS_READ).map(|nth| (format!("a{nth}"), json!("x"))).collect();
    let body = json!({"Id": ID, "Config": {"Labels": many, "Image": "after"}}).to_string();
    let said: Container<'_> = serde_json::from_str(&body).unwrap();
    let config = said.config.unwrap();
    assert_eq!(config.labels.unwrap().0.len(), MAX_LABELS_READ);
    assert_eq!(config.image.unwrap().0, "after");
}

#[test]
fn a_wrong_type_or_id_is_refused() {
    for wrong in [
        json!({"Id": 7}),
        json!({"Id": "abc"}),
        json!({"Id": "../".repeat(22)}),
        json!({"Id": ID.to_uppercase()}),
        json!({"Names": ["/one"]}),
        json!({"Id": ID, "Names": "one"}),
        json!({"Id": ID, "Names": [{}]}),
        json!({"Id": ID, "Labels": ["a"]}),
        json!({"Id": ID, "Labels": {"a": 1}}),
    ] {
        assert!(list_of(&json!([wrong])).is_err(), "{wrong}");
    }
    for wrong in [
        json!([]),
        json!({"Id": ID, "RestartCount": -1}),
        json!({"Id": ID, "RestartCount": "1"}),
        json!({"Id": ID, "Config": []}),
        json!({"Id": ID, "Name": null, "Config": {"Image": 1}}),
    ] {
        assert!(one(&wrong).is_err(), "{wrong}");
    }
    assert!(list(b"[]x", &wanted(), TELLER).is_err());
    assert!(list(b"{}", &wanted(), TELLER).is_err());
    let nested = "[".repeat(100_000);
    let deep = format!(r#"{{"Id":"{ID}","State":{nested}"#);
    assert!(container(deep.as_bytes(), &wanted(), TELLER).is_err());
}

#[test]
fn a_list_has_a_bound() {
    let of = |count: usize| list_of(&vec![json!({"Id": ID}); count].into());
    assert_eq!(of(MAX_CONTAINERS).unwrap().len(), MAX_CONTAINERS);
    assert!(of(MAX_CONTAINERS + 1).unwrap_err().to_string().contains("16384"));
}

#[test]
fn changes() {
    let podman = format!(
        r#"{{"status":"start","id":"{ID}","from":"x","Type":"container","Action":"start","Actor":{{"ID":"{ID}","Attributes":{{"app":"x"}}}},"time":1}}"#
    );
    assert_eq!(change(podman.as_bytes()).as_deref(), Some(ID));
    assert_eq!(change(br#"{"Actor":{"ID":"abc"}}"#), None);
    assert_eq!(change(b"garbage\xff"), None);
    assert_eq!(refusal(br#"{"cause":"x","message":"no such"}"#).as_deref(), Some("no such"));
    assert_eq!(refusal(br#"{"message":""}"#), None);
}

fn any_json() -> impl Strategy<Value = Value> {
    let keys = prop::sample::select(vec![
        "Id",
        "Names",
        "Name",
        "Image",
        "Labels",
        "Config",
        "RestartCount",
        "Components",
        "Version",
        "Actor",
        "ID",
        "message",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(ID)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner), 0..6).prop_map(|pairs| {
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        ]
    })
}

/// What holds of anything that was decoded.
fn holds(info: &Info) {
    assert!(is_id(&info.id));
    let texts =
        [&info.name, &info.pod, &info.namespace, &info.pod_uid, &info.sandbox_id, &info.image];
    for text in texts.into_iter().flatten() {
        assert!(!text.is_empty() && text.len() <= MAX_TEXT, "{info:?}");
    }
}

proptest! {
    #[test]
    fn any_answer_is_decoded_or_refused(answer in any_json(), end in any::<prop::sample::Index>()) {
        let text = answer.to_string();
        let bytes = text.as_bytes();
        for body in [bytes, &bytes[..end.index(bytes.len())]] {
            list(body, &wanted(), TELLER).iter().flatten().for_each(holds);
            container(body, &wanted(), TELLER).iter().for_each(holds);
            let _ = version(body);
            let _ = refusal(body);
            prop_assert!(change(body).is_none_or(|id| is_id(&id)));
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = (list(&body, &wanted(), TELLER), container(&body, &wanted(), TELLER), version(&body), change(&body));
    }

    #[test]
    fn any_name_stays_itself(name in "\\PC{1,80}") {
        let info = one(&json!({"Id": ID, "Name": format!("/{name}")})).unwrap();
        prop_assert_eq!(info.name, some(&name));
    }
}
