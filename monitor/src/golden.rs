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

/// The part of a document between `<!-- NAME: … -->` and `<!-- end of NAME -->`.
#[track_caller]
pub(crate) fn check_section(path: &Path, name: &str, text: &str) {
    let document = std::fs::read_to_string(path).unwrap();
    let marks = || {
        let (_, rest) = document.split_once(&format!("<!-- {name}: "))?;
        let (_, rest) = rest.split_once("-->\n")?;
        let (part, rest) = rest.split_once(&format!("<!-- end of {name} -->"))?;
        Some((
            document.len() - rest.len() - part.len() - name.len() - "<!-- end of  -->".len(),
            part,
        ))
    };
    let (start, part) =
        marks().unwrap_or_else(|| panic!("{} has no place for {name}", path.display()));
    let now = format!("\n{}\n\n", text.trim_end());
    let (before, after) = (&document[..start], &document[start + part.len()..]);
    check(path, &format!("{before}{now}{after}"));
}
