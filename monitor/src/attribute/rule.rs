//! One rule: how it is written in YAML, what is refused, and what it reads from the clues of a death.

use std::collections::HashSet;

use regex::{Captures, Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CGROUP_PATH, Clues, path};
use crate::config::{Refused, VariableName};
use crate::text::one_line;

/// Longest key of a label, an annotation or a tag, in bytes: a prefix of 253, `/` and a name of 63, as Kubernetes allows.
pub const MAX_KEY: usize = 317;
/// Longest name of a rule or a scheduler, in bytes.
const MAX_NAME: usize = 64;
/// Most sources of one part.
const MAX_SOURCES: usize = 16;
/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;
/// Memory that a compiled pattern may take, and the search with it, in bytes each. It also bounds the time of a search, which is linear in the
/// length of the path times the size of the pattern.
const MAX_COMPILED: usize = 128 << 10;

/// A rule as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// What it is called.
    pub rule: String,
    /// The scheduler that jobs by this rule belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// A pattern that is searched in the cgroup's path. If there is one, the rule counts only where it matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether `path` competes with those of other rules marked so: only the one that matches nearest the root counts, since what lies below a
    /// job's own cgroup may be made by the job.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outermost: bool,
    /// What must be there, all of it and not empty, for the rule to count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Vec<Source>>,
    /// Whether its name, attempt and index serve jobs of other rules that have none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fills: bool,
    /// Where the id is looked for, in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Vec<Source>>,
    /// Where the name is looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Vec<Source>>,
    /// Where the attempt is looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Vec<Source>>,
    /// Where the index is looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Vec<Source>>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A tag that the worker set.
    Tag(String),
    /// A label of the pod or container.
    Label(String),
    /// An annotation of the pod.
    Annotation(String),
    /// A variable of the victim's environment.
    Environ(String),
    /// A named group of the rule's `path`.
    Path(String),
}

/// Why a rule is refused, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {problem}")]
pub struct RuleError {
    /// Which rule, and which of its keys.
    pub place: String,
    /// What is wrong.
    pub problem: String,
}

/// The parts of a job that a rule gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parts<T> {
    pub(super) id: T,
    pub(super) name: T,
    pub(super) attempt: T,
    pub(super) index: T,
}

impl<T> Parts<T> {
    /// Each with its key.
    pub(super) fn each(&self) -> [(&'static str, &T); 4] {
        [("id", &self.id), ("name", &self.name), ("attempt", &self.attempt), ("index", &self.index)]
    }
}

/// A value and its source, as in `job.sources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sourced {
    pub(super) value: String,
    pub(super) source: String,
    /// Whether the worker said it by a tag.
    pub(super) by_tag: bool,
}

/// What one rule reads of one death.
pub(super) type Read = Parts<Option<Sourced>>;

/// What of a rule's reading is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// What a job may be made of: not the attempt of a job without id and name.
    Useful,
    /// All, for a person.
    All,
}

/// A rule, ready for use.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) scheduler: Option<String>,
    /// Whether it is the user's.
    pub(super) users: bool,
    pub(super) fills: bool,
    pub(super) path: Option<Regex>,
    outermost: bool,
    needs: Vec<Source>,
    pub(super) sources: Parts<Vec<Source>>,
}

impl Rule {
    /// Checks a rule; `list` and `nth` say which it is, such as `jobs.rules` and 0.
    pub(super) fn new(
        spec: &RuleSpec,
        list: &str,
        nth: usize,
        users: bool,
    ) -> Result<Self, RuleError> {
        let called = one_line(&spec.rule.chars().take(MAX_NAME).collect::<String>());
        let refuse = |key: &str, problem: String| {
            let dot = if key.is_empty() { "" } else { "." };
            RuleError {
                place: format!("{list}[{nth}]{dot}{key} (rule \"{called}\")"),
                problem: one_line(&problem),
            }
        };
        check_name(&spec.rule).map_err(|problem| refuse("rule", problem.to_string()))?;
        if let Some(scheduler) = &spec.scheduler {
            check_name(scheduler).map_err(|problem| refuse("scheduler", problem.to_string()))?;
        }
        let path = spec.path.as_deref().map(compile).transpose();
        let path = path.map_err(|problem| refuse("path", problem))?;
        let lists = Parts {
            id: spec.id.as_ref(),
            name: spec.name.as_ref(),
            attempt: spec.attempt.as_ref(),
            index: spec.index.as_ref(),
        };
        for (key, sources) in lists.each() {
            check_sources(sources.map(Vec::as_slice), path.as_ref())
                .map_err(|problem| refuse(key, problem))?;
        }
        check_sources(spec.needs.as_deref(), path.as_ref())
            .map_err(|problem| refuse("needs", problem))?;
        if spec.outermost && path.is_none() {
            return Err(refuse("outermost", "needs a `path` in the rule".to_owned()));
        }
        if lists.id.is_none() && lists.name.is_none() && !spec.fills {
            let problem = "gives neither an `id` nor a `name`, without which there is no job";
            return Err(refuse("", problem.to_owned()));
        }
        let [id, name, attempt, index] = lists
            .each()
            .map(|(_, sources)| sources.map(|list| (*list).clone()).unwrap_or_default());
        let sources = Parts { id, name, attempt, index };
        let taken = sources.each().into_iter().flat_map(|(_, list)| list);
        let used: HashSet<&str> =
            taken.chain(spec.needs.iter().flatten()).filter_map(group).collect();
        let groups = path.iter().flat_map(|path| path.capture_names().flatten());
        if let Some(unused) = { groups }.find(|name| !used.contains(name)) {
            let problem = format!(
                "no source takes the group `{unused}`: add `{{path: {unused}}}` to the part that it is for, or write `(?:…)`"
            );
            return Err(refuse("path", problem));
        }
        Ok(Self {
            name: spec.rule.clone(),
            scheduler: spec.scheduler.clone(),
            users,
            fills: spec.fills,
            path,
            outermost: spec.outermost,
            needs: spec.needs.clone().unwrap_or_default(),
            sources,
        })
    }

    /// Its pattern, if it is not the user's.
    pub(super) fn built_in_path(&self) -> Option<&str> {
        self.path.as_ref().filter(|_| !self.users).map(Regex::as_str)
    }

    /// Where its pattern matches, if it is held to be the outermost one.
    pub(super) fn outermost_at(&self, path: &str) -> Option<usize> {
        let pattern = self.path.as_ref().filter(|_| self.outermost)?;
        Some(pattern.find(path)?.start())
    }

    /// What it reads; `None` if its pattern does not match or what it needs is not there. `outermost` is where the first pattern matches of
    /// all rules that are held to be the outermost.
    pub(super) fn read(
        &self,
        clues: &Clues<'_>,
        outermost: Option<usize>,
        extent: Extent,
    ) -> Option<Read> {
        let groups = match &self.path {
            Some(pattern) => {
                // Groups take memory, and most of the user's match nothing; of the built-in ones only those come here that match.
                let path = clues.path.filter(|path| !self.users || pattern.is_match(path))?;
                Some(pattern.captures(path)?)
            }
            None => None,
        };
        let at = groups.as_ref().and_then(|groups| groups.get(0)).map(|whole| whole.start());
        let inner = self.outermost && at != outermost;
        let has = |source: &Source| source.read(clues, groups.as_ref()).is_some();
        if inner || !self.needs.iter().all(has) {
            return None;
        }
        let first = |sources: &[Source]| {
            sources.iter().find_map(|source| source.read(clues, groups.as_ref()))
        };
        let (id, name) = (first(&self.sources.id), first(&self.sources.name));
        if extent == Extent::Useful && id.is_none() && name.is_none() && !self.fills {
            return None;
        }
        Some(Parts {
            id,
            name,
            attempt: first(&self.sources.attempt),
            index: first(&self.sources.index),
        })
    }

    /// All its sources.
    pub(super) fn all_sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.each().into_iter().flat_map(|(_, list)| list).chain(&self.needs)
    }
}

impl Source {
    fn read(&self, clues: &Clues<'_>, groups: Option<&Captures<'_>>) -> Option<Sourced> {
        let (value, source, by_tag) = match self {
            Self::Tag(key) => (clues.tags.get(key)?.clone(), format!("tag:{key}"), true),
            Self::Label(key) => (clues.labels.get(key)?.clone(), format!("label:{key}"), false),
            Self::Annotation(key) => {
                (clues.annotations.get(key)?.clone(), format!("annotation:{key}"), false)
            }
            Self::Environ(name) => {
                (clues.environ.get(name)?.clone(), format!("environ:{name}"), false)
            }
            Self::Path(group) => {
                (path::unescape(groups?.name(group)?.as_str()), CGROUP_PATH.to_owned(), false)
            }
        };
        (!value.is_empty()).then_some(Sourced { value, source, by_tag })
    }
}

/// Whether a text can be the key of a label, an annotation or a tag.
///
/// # Errors
/// What is allowed.
pub fn check_key(key: &str) -> Result<(), Refused> {
    let plain = !key.chars().any(|c| c.is_control() || c.is_whitespace());
    if plain && (1..=MAX_KEY).contains(&key.len()) {
        return Ok(());
    }
    Err(Refused::new(format!(
        "must be a key of 1 to {MAX_KEY} bytes without blanks or control characters"
    )))
}

fn check_name(name: &str) -> Result<(), Refused> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if plain && (1..=MAX_NAME).contains(&name.len()) {
        return Ok(());
    }
    let refused = Refused::new(format!("must be 1 to {MAX_NAME} letters, digits or `_-.`"));
    Err(refused.with_value(name))
}

fn check_sources(sources: Option<&[Source]>, path: Option<&Regex>) -> Result<(), String> {
    let Some(sources) = sources else { return Ok(()) };
    if !(1..=MAX_SOURCES).contains(&sources.len()) {
        return Err(format!(
            "a list of {} is not allowed: must have 1 to {MAX_SOURCES} sources",
            sources.len()
        ));
    }
    sources.iter().try_for_each(|source| match source {
        Source::Tag(key) | Source::Label(key) | Source::Annotation(key) => {
            check_key(key).map_err(|refused| refused.with_value(key).to_string())
        }
        Source::Environ(name) => name
            .parse::<VariableName>()
            .map(|_| ())
            .map_err(|refused| refused.with_value(name).to_string()),
        Source::Path(group) => match path {
            None => Err(format!("{{path: {}}} needs a `path` in the rule", short(group))),
            Some(path) if path.capture_names().flatten().any(|name| name == group) => Ok(()),
            Some(_) => Err(format!("the rule's `path` has no group `(?<{}>…)`", short(group))),
        },
    })
}

/// A pattern with only such named groups as a job has parts.
fn compile(pattern: &str) -> Result<Regex, String> {
    if !(1..=MAX_PATTERN).contains(&pattern.len()) {
        return Err(format!(
            "a pattern of {} bytes is not allowed: must have 1 to {MAX_PATTERN}",
            pattern.len()
        ));
    }
    let compiled =
        RegexBuilder::new(pattern).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build();
    let compiled = compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!(
            "the pattern takes more than {MAX_COMPILED} bytes of memory; write fewer or smaller repetitions, such as `+` for `{{1,200}}`"
        ),
        // The crate draws the pattern with a mark under it, and ends with what is wrong.
        other => {
            let text = other.to_string();
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(&text);
            format!("not a regular expression: {}", last.trim().trim_start_matches("error: "))
        }
    })?;
    let known = Parts::<()>::default();
    let unknown = compiled
        .capture_names()
        .flatten()
        .find(|name| known.each().iter().all(|(key, ())| key != name));
    match unknown {
        Some(name) => Err(format!(
            "the group `{}` is not known: a group is called id, name, attempt or index",
            short(name)
        )),
        None => Ok(compiled),
    }
}

fn group(source: &Source) -> Option<&str> {
    match source {
        Source::Path(group) => Some(group),
        _ => None,
    }
}

/// What a message shows of a text that may be long.
fn short(text: &str) -> String {
    text.chars().take(100).collect()
}
