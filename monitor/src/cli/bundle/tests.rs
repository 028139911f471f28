//! The file that is written.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn nothing_is_overwritten_and_only_its_owner_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar.gz");
    write(&path, b"first").unwrap();
    let error = write(&path, b"second").unwrap_err();
    assert!(format!("{error:#}").contains("a.tar.gz: File exists"), "{error:#}");
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(write(&dir.path().join("no/such"), b"x").is_err());
}
