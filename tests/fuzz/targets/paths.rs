//! A cgroup path → container, pod, unit, job.
#![no_main]

use killwatch::attribute::path;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let identity = path::identify(&text);
    if let Some(container) = identity.container {
        assert!(text.contains(&container.bare_id));
    }
    let _ = path::job(&text);
});
