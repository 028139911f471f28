//! The sources of the daemon, read for the structures of the configuration: their fields, types and comments, as rustfmt writes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A field of a structure, or a variant of `Kind`.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// As it is written in a file.
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) about: String,
}

#[derive(Debug, Default)]
struct Structure {
    about: String,
    fields: Vec<Field>,
}

/// All public structures with named fields, and enums.
#[derive(Debug, Default)]
pub(super) struct Source {
    structures: BTreeMap<String, Vec<Structure>>,
    enums: BTreeMap<String, Vec<Structure>>,
}

impl Source {
    /// Reads every source below a directory.
    pub(super) fn read(directory: &Path) -> Self {
        let mut source = Self::default();
        source.walk(directory);
        source
    }

    fn walk(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.walk(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.file(&fs::read_to_string(&path).unwrap());
            }
        }
    }

    fn file(&mut self, text: &str) {
        let (mut about, mut attributes) = (Vec::new(), String::new());
        let mut open: Option<(bool, String, Structure)> = None;
        for line in text.lines() {
            let trimmed = line.trim();
            if let Some(comment) = trimmed.strip_prefix("///") {
                about.push(comment.trim());
                continue;
            }
            if trimmed.starts_with("#[") {
                attributes.push_str(trimmed);
                continue;
            }
            let said = || sentences(&about.join(" "));
            let head = |word| line.strip_prefix(word)?.strip_suffix(" {").map(str::to_owned);
            if let Some(name) =
                line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {}"))
            {
                self.structures
                    .entry(name.to_owned())
                    .or_default()
                    .push(Structure { about: said(), fields: Vec::new() });
            } else if let Some(name) = head("pub struct ") {
                open = Some((false, name, Structure { about: said(), fields: Vec::new() }));
            } else if let Some(name) = head("pub enum ") {
                open = Some((true, name, Structure { about: said(), fields: Vec::new() }));
            } else if line == "}" {
                if let Some((is_enum, name, structure)) = open.take() {
                    let all = if is_enum { &mut self.enums } else { &mut self.structures };
                    all.entry(name).or_default().push(structure);
                }
            } else if let Some((is_enum, _, structure)) = &mut open
                && let Some((name, kind)) = member(line, *is_enum)
                && !attributes.contains("serde(skip)")
            {
                let renamed = attributes
                    .split_once("rename = \"")
                    .and_then(|(_, rest)| rest.split('"').next());
                let name = renamed.unwrap_or(name).to_owned();
                structure.fields.push(Field { name, kind: kind.to_owned(), about: said() });
            }
            about.clear();
            attributes.clear();
        }
    }

    fn structure(&self, name: &str) -> &Structure {
        match self.structures.get(name).map(Vec::as_slice) {
            Some([one]) => one,
            other => panic!("{name}: {} structures are called so", other.map_or(0, <[_]>::len)),
        }
    }

    /// Its fields in order.
    pub(super) fn fields(&self, structure: &str) -> Vec<Field> {
        self.structure(structure).fields.clone()
    }

    /// Its comment.
    pub(super) fn about(&self, structure: &str) -> &str {
        &self.structure(structure).about
    }

    /// The structure that a field of this type holds, whose fields are keys of their own. A list of them is one key.
    pub(super) fn section<'a>(&self, kind: &'a str) -> Option<&'a str> {
        let inner =
            kind.strip_prefix("Option<").and_then(|rest| rest.strip_suffix('>')).unwrap_or(kind);
        self.structures.contains_key(inner).then_some(inner)
    }

    /// What a variant of an enum holds, by the variant's name in a file.
    pub(super) fn variant(&self, of: &str, name: &str) -> String {
        let camel: String =
            name.split('_').map(|part| part[..1].to_ascii_uppercase() + &part[1..]).collect();
        let variants = self.enums.get(of).and_then(|all| all.first()).unwrap();
        variants
            .fields
            .iter()
            .find(|field| field.name == camel)
            .unwrap_or_else(|| panic!("{of}::{camel}"))
            .kind
            .clone()
    }
}

/// Name and type of a field, or of what a variant holds.
fn member(line: &str, is_variant: bool) -> Option<(&str, &str)> {
    if is_variant {
        return line.strip_prefix("    ")?.strip_suffix("),")?.split_once('(');
    }
    line.strip_prefix("    pub ")?.strip_suffix(',')?.split_once(": ")
}

/// Without the sentences that link to code: what they say, the table has.
fn sentences(comment: &str) -> String {
    comment
        .split_inclusive(". ")
        .filter(|sentence| !sentence.contains("[`"))
        .collect::<String>()
        .trim()
        .to_owned()
}
