//! YAML of what a person wrote, and the one line that says what is wrong with it.

use erased_serde::Deserializer as Erased;
use serde::de::{DeserializeOwned, Error as _};
use serde_path_to_error::Track;

/// What the reader adds where it knows where it is: ` at line 2, column 3`.
const PLACE: &str = " at line ";
/// And where an alias is in it: ` (defined at line 1, column 9) (used at line 2, column 6)`.
const ALIAS: &str = " (defined at line ";

/// Reads YAML of any kind.
///
/// # Errors
/// A line that names the key, the value, what is allowed, and where it stands.
pub(crate) fn read<T: DeserializeOwned>(yaml: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(yaml)
        .map_err(|e| format!("not UTF-8 from byte {} on", e.valid_up_to()))?;
    let mut value = None;
    each(text, &mut |deserializer| {
        value = Some(erased_serde::deserialize(deserializer)?);
        Ok(())
    })?;
    value.ok_or_else(|| "nothing was read".to_owned())
}

/// Hands the document to who makes a value of it. Behind `dyn`, since the code that reads a type is made anew for each reader: without it,
/// a tenth of the program is the reading of its configuration.
fn each(
    text: &str,
    make: &mut dyn FnMut(&mut dyn Erased<'_>) -> Result<(), erased_serde::Error>,
) -> Result<(), String> {
    let mut track = Track::new();
    let read = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        let tracked = serde_path_to_error::Deserializer::new(deserializer, &mut track);
        make(&mut <dyn Erased<'_>>::erase(tracked)).map_err(serde_saphyr::Error::custom)
    });
    read.map_err(|error| explain(&track.path().to_string(), &error.without_snippet().to_string()))
}

/// One line from the reader's error: the key, what is wrong, and where.
fn explain(key: &str, error: &str) -> String {
    // A hint for programmers.
    let mut problem = error.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
    // What is wrong stands where the anchor does.
    if let Some((what, _)) = problem.rsplit_once(ALIAS).filter(|(_, rest)| rest.ends_with(')')) {
        problem.truncate(what.len());
    }
    // Each level that an error comes through may add where that level begins. The first of them is where it was found.
    let mut found = None;
    while let Some((what, place)) = problem.rsplit_once(PLACE).filter(|(_, place)| is_place(place))
    {
        found = Some(place.to_owned());
        problem.truncate(what.len());
    }
    let key = match key {
        "" | "." | "?" => String::new(),
        key => format!("{key}: "),
    };
    let place = found.map(|place| format!(" (line {place})")).unwrap_or_default();
    crate::text::one_line(&format!("{key}{problem}{place}"))
}

/// Whether it is `2, column 3`.
fn is_place(text: &str) -> bool {
    let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    text.split_once(", column ").is_some_and(|(line, column)| number(line) && number(column))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{explain, read};

    #[test]
    fn the_innermost_place_is_told() {
        let deep =
            read::<BTreeMap<String, Vec<BTreeMap<String, u8>>>>(b"a:\n  - b: 1\n  - c: no\n");
        assert_eq!(deep.unwrap_err(), "a[1].c: invalid u8 (line 3, column 8)");
    }

    #[test]
    fn a_value_that_reads_like_a_place_stays() {
        let told = explain(
            "k",
            "\"x at line 1, column 2\" is not allowed at line 3, column 4 at line 1, column 1",
        );
        assert_eq!(told, "k: \"x at line 1, column 2\" is not allowed (line 3, column 4)");
        assert_eq!(explain("?", "off at line 9"), "off at line 9");
    }

    #[test]
    fn behind_an_alias_it_is_told_where_it_is_written() {
        let told =
            read::<BTreeMap<String, BTreeMap<String, u8>>>(b"a: &a {x: 1}\nb: *a\nc: &c {y: no}\n");
        assert_eq!(told.unwrap_err(), "c.y: invalid u8 (line 3, column 11)");
        let told = explain(
            "b.x",
            "bad at line 1, column 7 at line 2, column 4 (defined at line 1, column 4) (used at line 2, column 4)",
        );
        assert_eq!(told, "b.x: bad (line 1, column 7)");
    }
}
