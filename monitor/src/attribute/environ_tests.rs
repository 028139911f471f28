//! Tests of [`Scanner`] and [`Allowlist`]: hostile environments, gaps, and any way of cutting one into pieces.

use proptest::prelude::*;

use super::environ::{
    Allowlist, AllowlistError, DEFAULT_NAMES, Environ, MAX_NAME, MAX_NAMES, MAX_VALUE, Scanner,
};

fn allowed() -> Allowlist {
    Allowlist::new(&["SNAPSHOT_ID".to_owned()]).unwrap()
}

/// Scans whole.
fn scan(bytes: &[u8]) -> Environ {
    let mut scanner = Scanner::new(&allowed());
    scanner.feed(0, bytes);
    scanner.finish(bytes.len() as u64)
}

fn told(environ: &Environ) -> Vec<String> {
    environ.variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[test]
fn keeps_the_allowed_and_nothing_else() {
    let found = scan(b"PATH=/bin\0JOB_ID=4711\0SECRET=JOB_ID=1\0SNAPSHOT_ID=s=1\0JOB_NAME=\0");
    assert_eq!(told(&found), ["JOB_ID=4711", "JOB_NAME=", "SNAPSHOT_ID=s=1"]);
    assert!(found.complete);
}

#[test]
fn the_first_of_two_wins_as_in_getenv() {
    assert_eq!(told(&scan(b"JOB_ID=1\0JOB_ID=2\0")), ["JOB_ID=1"]);
    assert_eq!(told(&scan(b"JOB_ID\0JOB_ID=2\0")), ["JOB_ID=2"], "without `=` it is no variable");
}

#[test]
fn hostile_environments() {
    assert_eq!(told(&scan(b"")), Vec::<String>::new());
    assert_eq!(
        told(&scan(b"=\0==\0=JOB_ID=1\0\0\0XJOB_ID=2\0job_id=3\0 JOB_ID=4\0")),
        Vec::<String>::new()
    );
    assert_eq!(told(&scan(b"JOB_ID=a\nJOB_NAME=b\xff\0")), ["JOB_ID=a\nJOB_NAME=b\\xff"]);
    let long = [vec![b'N'; MAX_NAME + 1], b"=1\0JOB_ID=1\0".to_vec()].concat();
    assert_eq!(told(&scan(&long)), ["JOB_ID=1"]);
    assert_eq!(told(&scan(&[vec![b'x'; 1 << 20], b"\0JOB_ID=1".to_vec()].concat())), ["JOB_ID=1"]);
}

#[test]
fn a_long_value_is_cut_between_characters() {
    let value = |bytes: &[u8]| {
        scan(&[b"JOB_ID=", bytes, b"\0"].concat()).variables.remove("JOB_ID").unwrap()
    };
    assert_eq!(value(&[b'x'; MAX_VALUE]).len(), MAX_VALUE);
    assert_eq!(value(&[b'x'; 70_000]).len(), MAX_VALUE);
    assert_eq!(value(format!("x{}", "é".repeat(200)).as_bytes()).len(), MAX_VALUE - 1);
    assert_eq!(
        value(format!("{}€", "x".repeat(MAX_VALUE - 1)).as_bytes()),
        "x".repeat(MAX_VALUE - 1)
    );
    assert_eq!(value(&[0xff; 300]), "\\xff".repeat(MAX_VALUE / 4));
}

#[test]
fn a_gap_takes_only_the_variable_that_straddles_it() {
    let bytes = b"JOB_ID=1\0JOB_NAME=resize\0RUN_ID=r\0";
    let mut scanner = Scanner::new(&allowed());
    scanner.feed(0, &bytes[..15]);
    scanner.feed(15, b"");
    scanner.feed(20, &bytes[20..]);
    let found = scanner.finish(bytes.len() as u64);
    assert_eq!(told(&found), ["JOB_ID=1", "RUN_ID=r"]);
    assert!(!found.complete);
}

#[test]
fn what_follows_a_gap_does_not_pass_for_a_variable() {
    let mut scanner = Scanner::new(&allowed());
    // The end of `SECRET=…JOB_ID=1`, say.
    scanner.feed(1000, b"JOB_ID=1\0RUN_ID=r\0");
    assert_eq!(told(&scanner.finish(1018)), ["RUN_ID=r"]);
}

#[test]
fn an_end_that_was_not_seen_is_not_told_as_whole() {
    let bytes = b"RUN_ID=r\0JOB_ID=47";
    let mut scanner = Scanner::new(&allowed());
    scanner.feed(0, bytes);
    let found = scanner.finish(bytes.len() as u64 + 3);
    assert_eq!((told(&found), found.complete), (vec!["RUN_ID=r".to_owned()], false));
    assert!(!Scanner::new(&allowed()).finish(1).complete);
    assert!(Scanner::new(&allowed()).finish(0).complete);
}

#[test]
fn repeated_and_overlapping_pieces_count_once() {
    let mut scanner = Scanner::new(&allowed());
    for (offset, bytes) in
        [(0, b"JOB_ID=1".as_slice()), (0, b"JOB_ID=1"), (4, b"ID=123\0R"), (2, b"B")]
    {
        scanner.feed(offset, bytes);
    }
    scanner.feed(u32::MAX, b"\0JOB_NAME=n\0");
    let found = scanner.finish(u64::from(u32::MAX) + 12);
    assert_eq!(told(&found), ["JOB_ID=123", "JOB_NAME=n"]);
}

#[test]
fn names_are_checked() {
    let check = |name: &str| Allowlist::new(&[name.to_owned()]);
    for bad in ["", "=", "A=B", "A\0"] {
        assert!(matches!(check(bad), Err(AllowlistError::NotAName { .. })), "{bad:?}");
    }
    assert!(check(&"N".repeat(MAX_NAME)).unwrap().contains("N".repeat(MAX_NAME).as_bytes()));
    let error = check(&"N".repeat(MAX_NAME + 1)).unwrap_err().to_string();
    assert!(error.contains("65 bytes; at most 64"), "{error}");
    let many =
        |count: usize| Allowlist::new(&(0..count).map(|n| format!("OWN_{n}")).collect::<Vec<_>>());
    assert_eq!(many(MAX_NAMES - DEFAULT_NAMES.len()).unwrap().names().count(), MAX_NAMES);
    assert!(many(MAX_NAMES - DEFAULT_NAMES.len() + 1).is_err());
    assert!(check("JOB_ID").is_ok(), "a default name again is no error");
}

/// Environments with allowed names, near misses, duplicates and junk.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => proptest::sample::select(vec!["JOB_ID=", "SNAPSHOT_ID=", "JOB_ID", "SECRET=", "=", "é", "JOB_NAME="])
            .prop_map(|text| text.as_bytes().to_vec()),
        3 => Just(vec![0]),
        2 => proptest::collection::vec(any::<u8>(), 0..12),
        1 => (0..400usize).prop_map(|len| vec![b'v'; len]),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

/// The same by splitting the whole, as a check.
fn simple(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for variable in bytes.split(|byte| *byte == 0) {
        let Some(equals) = variable.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (&variable[..equals], &variable[equals + 1..]);
        if allowed().contains(name) && !found.iter().any(|(known, _)| known == name) {
            found.push((name.to_vec(), value.to_vec()));
        }
    }
    found
}

proptest! {
    #[test]
    fn any_split_gives_the_same(bytes in soup(), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let mut scanner = Scanner::new(&allowed());
        for pair in cuts.windows(2) {
            scanner.feed(u32::try_from(pair[0]).unwrap(), &bytes[pair[0]..pair[1]]);
        }
        let split = scanner.finish(bytes.len() as u64);
        prop_assert_eq!(&split, &scan(&bytes));
        prop_assert!(split.complete);
        let expected = simple(&bytes);
        prop_assert_eq!(split.variables.len(), expected.len());
        for (name, value) in expected {
            let kept = &split.variables[std::str::from_utf8(&name).unwrap()];
            prop_assert!(kept.len() <= MAX_VALUE);
            prop_assert!(crate::text::from_bytes(&value).starts_with(kept) || value.len() > MAX_VALUE);
        }
    }

    #[test]
    fn with_pieces_lost_nothing_is_invented(bytes in soup(), keep in proptest::collection::vec(any::<bool>(), 1..20), size in 1..40usize) {
        let mut scanner = Scanner::new(&allowed());
        let mut lost = false;
        for (nth, piece) in bytes.chunks(size).enumerate() {
            if keep[nth % keep.len()] {
                scanner.feed(u32::try_from(nth * size).unwrap(), piece);
            } else {
                lost = true;
            }
        }
        let found = scanner.finish(bytes.len() as u64);
        prop_assert_eq!(found.complete, !lost);
        // A variable is told only as it stands somewhere in the whole.
        for (name, value) in &found.variables {
            let known = bytes.split(|byte| *byte == 0).any(|variable| {
                scan(&[variable, b"\0"].concat()).variables.get(name) == Some(value)
            });
            prop_assert!(known, "{}={}", name, value);
        }
    }
}
