//! Reaching another Debian suite through the sources that this machine already has, without changing the machine.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// One archive that the machine uses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    /// Keyring, if one is named.
    signed_by: Option<String>,
}

/// Lines of a sources.list(5) for `suites`, from the machine's own files under `etc` (such as `/etc/apt`).
pub(crate) fn derive(etc: &Path, codename: &str, suites: &[&str]) -> Result<String> {
    let sources = read(etc)?;
    let mut lines = String::new();
    for suite in suites {
        // Security updates are an archive of their own.
        let ours = if suite.ends_with("-security") {
            format!("{codename}-security")
        } else {
            codename.to_owned()
        };
        let Some(source) = sources.iter().find(|source| source.suites.contains(&ours)) else {
            continue;
        };
        let option = source
            .signed_by
            .as_ref()
            .map(|keyring| format!(" [signed-by={keyring}]"))
            .unwrap_or_default();
        lines.push_str(&format!("deb{option} {} {suite} main\n", source.uri));
    }
    if lines.is_empty() {
        bail!(
            "{} names no archive of {codename}, from which {} could be reached",
            etc.display(),
            suites.join(", ")
        );
    }
    Ok(lines)
}

fn read(etc: &Path) -> Result<Vec<Source>> {
    let mut files = vec![etc.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(text.lines().filter_map(one_line)),
            Some("sources") => sources.extend(text.split("\n\n").flat_map(stanza)),
            _ => {}
        }
    }
    Ok(sources)
}

/// `deb [signed-by=KEYRING] URI SUITE COMPONENT…`
fn one_line(line: &str) -> Option<Source> {
    let mut rest = line.trim().strip_prefix("deb ")?.trim_start();
    let mut signed_by = None;
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    words.any(|component| component == "main").then(|| Source {
        uri: uri.to_owned(),
        suites: vec![suite.to_owned()],
        signed_by,
    })
}

/// A paragraph of a deb822 file: one source for each of its URIs.
fn stanza(text: &str) -> Vec<Source> {
    let field = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).unwrap_or_default()
    };
    let words = |key: &str| field(key).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let enabled = !field("Enabled:").eq_ignore_ascii_case("no");
    if !enabled
        || !words("Types:").contains(&"deb".to_owned())
        || !words("Components:").contains(&"main".to_owned())
    {
        return Vec::new();
    }
    // A key given in the file itself instead of by path is left to the machine's default keyrings.
    let signed_by =
        Some(field("Signed-By:")).filter(|path| path.starts_with('/')).map(str::to_owned);
    let source = |uri| Source { uri, suites: words("Suites:"), signed_by: signed_by.clone() };
    words("URIs:").into_iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "Types: deb\n# comment\nURIs: http://a.test/debian\nSuites: bookworm bookworm-updates\n\
        Components: main\nSigned-By: /usr/share/keyrings/k.gpg\n\nTypes: deb\nURIs: http://a.test/security\n\
        Suites: bookworm-security\nComponents: main\n\nTypes: deb-src\nURIs: http://no.test\nSuites: bookworm\nComponents: main\n";

    fn etc(name: &str, text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        dir
    }

    #[test]
    fn another_suite_comes_from_the_same_archive() {
        let dir = etc("sources.list.d/debian.sources", DEB822);
        let text =
            derive(dir.path(), "bookworm", &["bookworm-backports", "bookworm-security"]).unwrap();
        assert_eq!(
            text,
            "deb [signed-by=/usr/share/keyrings/k.gpg] http://a.test/debian bookworm-backports main\n\
             deb http://a.test/security bookworm-security main\n"
        );
    }

    #[test]
    fn one_line_files_serve_too() {
        let list = "# deb http://no.test bookworm main\ndeb [arch=amd64 signed-by=/k] http://b.test bookworm main contrib\n\
            deb http://c.test stable other\n";
        let dir = etc("sources.list", list);
        assert_eq!(
            derive(dir.path(), "bookworm", &["sid"]).unwrap(),
            "deb [signed-by=/k] http://b.test sid main\n"
        );
        assert!(derive(dir.path(), "noble", &["sid"]).is_err());
    }
}
