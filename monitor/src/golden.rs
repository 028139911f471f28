//! Texts that tests compare with. `UPDATE_GOLDEN=1 cargo test` writes them anew; the diff is for a person to judge.

use std::path::Path;

/// Compares with a file, or writes it.
#[track_caller]
pub(crate) fn check(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == text,
        "{} differs; UPDATE_GOLDEN=1 rewrites it. Now:\n{text}",
        path.display()
    );
}

/// The file `name` in the folder of golden texts.
#[track_caller]
pub(crate) fn check_named(name: &str, text: &str) {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name), text);
}
