//! An environment in pieces, with gaps and repetitions: what is kept is on the allowlist, bounded, and independent of how it was cut up.
#![no_main]

use killwatch::attribute::environ::{Allowlist, Scanner, MAX_VALUE};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>, bool)| {
    let (bytes, cuts, gaps) = input;
    let Ok(allowed) = Allowlist::new(&["MINE".to_owned()]) else { return };
    let whole = {
        let mut scanner = Scanner::new(&allowed);
        scanner.feed(0, &bytes);
        scanner.finish(bytes.len() as u64)
    };
    let mut scanner = Scanner::new(&allowed);
    let (mut start, mut cuts) = (0, cuts.into_iter());
    while start < bytes.len() {
        let length = usize::from(cuts.next().unwrap_or(255)).max(1);
        let end = bytes.len().min(start + length);
        if !(gaps && length % 7 == 3) {
            scanner.feed(u32::try_from(start).unwrap_or(u32::MAX), &bytes[start..end]);
        }
        start = end;
    }
    let pieces = scanner.finish(bytes.len() as u64);
    for (name, value) in &pieces.variables {
        assert!(allowed.contains(name.as_bytes()));
        assert!(value.len() <= MAX_VALUE);
    }
    if !gaps {
        assert_eq!(pieces, whole);
    }
});
