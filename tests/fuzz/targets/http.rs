//! Answers over HTTP: of Docker, Podman and the Kubernetes API.
#![no_main]

use killwatch::containers::docker::answers::{self, Teller};
use killwatch::containers::docker::lines::Lines;
use killwatch::containers::kubernetes::decode;
use killwatch::containers::{Wanted, MAX_TEXT};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut wanted = Wanted::default();
    wanted.labels.insert("app".to_owned());
    let _ = answers::version(bytes);
    let _ = answers::refusal(bytes);
    let teller = Teller { source: "docker", runtime: "docker" };
    let listed = answers::list(bytes, &wanted, teller).unwrap_or_default();
    let one = answers::container(bytes, &wanted, teller).ok();
    for info in listed.into_iter().chain(one) {
        assert!(answers::is_id(&info.id));
        let texts = [&info.name, &info.pod, &info.namespace, &info.pod_uid, &info.image];
        assert!(texts.into_iter().flatten().all(|text| !text.is_empty() && text.len() <= MAX_TEXT));
        assert!(info.labels.keys().all(|key| wanted.labels.contains(key)));
    }
    let mut lines = Lines::default();
    lines.feed(bytes, |line| {
        if let Some(id) = answers::change(line) {
            assert!(answers::is_id(&id));
        }
    });
    let _ = decode::version(bytes);
    if let Ok(metadata) = decode::metadata(bytes, &wanted) {
        assert!(metadata.labels.keys().all(|key| wanted.labels.contains(key)));
    }
});
