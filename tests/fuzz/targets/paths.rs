//! A cgroup path → container, pod, unit, job.
#![no_main]

use killwatch::attribute::{job, path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let identity = path::identify(&text);
    if let Some(container) = identity.container {
        assert!(text.contains(&container.bare_id));
    }
    // What is believed is the beginning of what is said.
    for known in path::containers(&text) {
        assert!(text.starts_with(path::believed(&text, |id| id == known.bare_id)));
    }
    let _ = job(Some(&text), &Default::default());
});
