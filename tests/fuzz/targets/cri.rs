//! Answers of a CRI runtime: whatever it says, what is kept is bounded.
#![no_main]

use bytes::Bytes;
use killwatch::containers::cri::decode;
use killwatch::containers::{Wanted, MAX_TEXT};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let answer = Bytes::copy_from_slice(bytes);
    let mut wanted = Wanted::default();
    wanted.labels.insert("app".to_owned());
    wanted.annotations.insert("team".to_owned());
    let _ = decode::version(answer.clone());
    if let Ok(Some(id)) = decode::event(answer.clone()) {
        assert!(!id.is_empty() && id.len() <= 128);
    }
    let lists = (decode::containers(answer.clone(), &wanted), decode::sandboxes(answer, &wanted));
    if let (Ok(containers), Ok(sandboxes)) = lists {
        for item in decode::join(containers, sandboxes).items {
            let info = item.info;
            let texts = [&info.name, &info.pod, &info.namespace, &info.pod_uid, &info.image];
            assert!(texts.into_iter().flatten().all(|text| !text.is_empty() && text.len() <= MAX_TEXT));
            assert!(info.labels.keys().all(|key| wanted.labels.contains(key)));
            assert!(info.annotations.keys().all(|key| wanted.annotations.contains(key)));
        }
    }
});
