//! Memory files of cgroups and of the host: whatever they say, what comes of it fits together.
#![no_main]

use killwatch::watch::parse::{keyed, kibibytes, limit, number, pressure, Kinds};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert!(number(bytes).is_none() || limit(bytes).is_some());
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!(keyed(bytes).count() <= lines && kibibytes(bytes).count() <= lines);
    if let Some(pressure) = pressure(bytes) {
        assert!((0.0..=100.0).contains(&pressure.some_avg10));
    }
    let kinds = Kinds::parse(bytes);
    for usage in [0, 1 << 30, u64::MAX] {
        assert!(kinds.unreclaimable(usage).is_none_or(|firm| firm <= usage));
        assert!(kinds.working_set(usage).is_none_or(|set| set <= usage));
    }
    let _ = (kinds.file(), kinds.all_kernel());
});
