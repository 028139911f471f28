//! The job of a victim, by rules that are data: the built-in ones in `rules.yaml`, where their order is explained, and the user's.
//!
//! Which id is told, when several are there: what the worker itself said by a tag, then the user's rules, then the built-in ones in the order
//! of trust. The first rule that gives an id wins; if none does, the first that gives a name. Name, attempt and index are the winner's; what it
//! lacks may come from a rule that `fills` (`JOB_NAME`, `ATTEMPT`), but
//! * not from one that speaks of another job: its own id is not the winner's;
//! * not for a job told by a tag: the environment and the pod are those of a worker that has many jobs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::LazyLock;

use regex::{RegexSet, SetMatches};
use serde::Deserialize;

use super::rule::{Extent, Parts, Read, Rule, RuleError, RuleSpec, Source, Sourced};
use super::{CGROUP_PATH, Clues};
use crate::containers::Wanted;
use crate::death::Job;
use crate::text::one_line;
use crate::yaml;

const BUILT_IN: &str = include_str!("rules.yaml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BuiltIn {
    before_the_users: Vec<RuleSpec>,
    after_the_users: Vec<RuleSpec>,
}

/// A pattern that matches nothing.
const NEVER: &str = "[a&&b]";

/// Every rule, in the order of trust.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// The patterns of the built-in ones, each in its rule's place, looked for all at once: most paths match none. The user's may be too dear for that.
    paths: RegexSet,
}

/// A rule that says something of a death.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried<'a> {
    /// What the rule is called.
    pub rule: &'a str,
    /// Whether it is the user's.
    pub users: bool,
    /// Its scheduler.
    pub scheduler: Option<&'a str>,
    /// What it gives: part, value, source.
    pub parts: Vec<(&'static str, String, String)>,
    /// Whether the job is this rule's.
    pub won: bool,
}

impl Rules {
    /// More rules of the user's own are refused: each is tried at each death.
    pub const MAX: usize = 64;

    /// The built-in rules and the user's own.
    ///
    /// # Errors
    /// Which of the user's rules is not allowed, and why.
    pub fn new(own: &[RuleSpec]) -> Result<Self, RuleError> {
        const LIST: &str = "the built-in rules";
        let own = compiled_own(own)?;
        let built_in: BuiltIn = yaml::read(BUILT_IN.as_bytes())
            .map_err(|problem| RuleError { place: LIST.to_owned(), problem })?;
        let mut rules = compiled(&built_in.before_the_users, LIST, false)?;
        rules.extend(own);
        rules.extend(compiled(&built_in.after_the_users, LIST, false)?);
        let paths = RegexSet::new(rules.iter().map(|rule| rule.built_in_path().unwrap_or(NEVER)));
        let paths = paths.map_err(|error| RuleError {
            place: LIST.to_owned(),
            problem: one_line(&error.to_string()),
        })?;
        Ok(Self { rules, paths })
    }

    /// The variables that the user's rules look at, if the rules are allowed. It leaves the built-in ones alone, so it costs less than
    /// [`Rules::new`].
    ///
    /// # Errors
    /// Which rule is not allowed, and why.
    pub fn check(own: &[RuleSpec]) -> Result<BTreeSet<String>, RuleError> {
        Ok(environ_names(&compiled_own(own)?))
    }

    /// The built-in rules alone. A test holds that they are allowed.
    #[must_use]
    pub fn built_in() -> &'static Self {
        static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::new(&[]).unwrap_or_default());
        &RULES
    }

    /// The job that the clues tell of; `None` if no rule finds an id or a name.
    #[must_use]
    pub fn job(&self, clues: &Clues<'_>) -> Option<Job> {
        let found = self.look(clues.path);
        let (rule, read) = self.winner(clues, &found)?;
        Some(self.job_of(rule, read, clues, &found))
    }

    /// Each rule that says something, in order, as a person who writes rules wants to see it.
    #[must_use]
    pub fn tried(&self, clues: &Clues<'_>) -> Vec<Tried<'_>> {
        let found = self.look(clues.path);
        let winner = self.winner(clues, &found).map(|(rule, _)| std::ptr::from_ref(rule));
        let tried = self.readings(clues, &found, Extent::All).map(|(rule, read)| Tried {
            rule: &rule.name,
            users: rule.users,
            scheduler: rule.scheduler.as_deref(),
            parts: read
                .each()
                .into_iter()
                .filter_map(|(key, part)| {
                    let Sourced { value, source, .. } = part.clone()?;
                    Some((key, value, source))
                })
                .collect(),
            won: winner == Some(std::ptr::from_ref(rule)),
        });
        tried.filter(|tried| !tried.parts.is_empty()).collect()
    }

    /// How many rules there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rules.len()
    }

    /// The labels and annotations that any rule looks at.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for source in self.rules.iter().flat_map(Rule::all_sources) {
            match source {
                Source::Label(key) => wanted.labels.insert(key.clone()),
                Source::Annotation(key) => wanted.annotations.insert(key.clone()),
                Source::Tag(_) | Source::Environ(_) | Source::Path(_) => continue,
            };
        }
        wanted
    }

    /// The variables that any rule looks at; they must be on the allowlist.
    #[must_use]
    pub fn environ_names(&self) -> BTreeSet<String> {
        environ_names(&self.rules)
    }

    /// Looks for the patterns in a path.
    fn look(&self, path: Option<&str>) -> Found {
        let mut found =
            Found { matching: path.map(|path| self.paths.matches(path)), outermost: None };
        let starts = self.candidates(&found).filter_map(|rule| rule.outermost_at(path?));
        found.outermost = starts.min();
        found
    }

    /// The rules that may count, in order.
    fn candidates(&self, found: &Found) -> impl Iterator<Item = &Rule> {
        let matches = |nth| found.matching.as_ref().is_some_and(|set| set.matched(nth));
        let may =
            move |(nth, rule): &(usize, &Rule)| rule.built_in_path().is_none() || matches(*nth);
        self.rules.iter().enumerate().filter(may).map(|(_, rule)| rule)
    }

    /// What each rule that counts reads, in order.
    fn readings(
        &self,
        clues: &Clues<'_>,
        found: &Found,
        extent: Extent,
    ) -> impl Iterator<Item = (&Rule, Read)> {
        self.candidates(found)
            .filter_map(move |rule| Some((rule, rule.read(clues, found.outermost, extent)?)))
    }

    fn winner(&self, clues: &Clues<'_>, found: &Found) -> Option<(&Rule, Read)> {
        let mut by_name = None;
        for (rule, read) in self.readings(clues, found, Extent::Useful) {
            if read.id.is_some() {
                return Some((rule, read));
            }
            if by_name.is_none() && read.name.is_some() {
                by_name = Some((rule, read));
            }
        }
        by_name
    }

    fn job_of(&self, rule: &Rule, mut read: Read, clues: &Clues<'_>, found: &Found) -> Job {
        let shown_by = read.id.as_ref().or(read.name.as_ref());
        // A path shows whose job it is, also where the id is a variable's.
        let scheduler_source = match (&rule.path, shown_by) {
            (Some(_), _) => Some(CGROUP_PATH.to_owned()),
            (None, shown_by) => shown_by.map(|sourced| sourced.source.clone()),
        };
        if !shown_by.is_some_and(|sourced| sourced.by_tag) {
            self.fill(&mut read, clues, found);
        }
        let mut sources = BTreeMap::new();
        let scheduler = rule.scheduler.clone().zip(scheduler_source).map(|(scheduler, source)| {
            sources.insert("scheduler".to_owned(), source);
            scheduler
        });
        let mut put = |key: &str, part: Option<Sourced>| {
            let Sourced { value, source, .. } = part?;
            sources.insert(key.to_owned(), source);
            Some(value)
        };
        let Parts { id, name, attempt, index } = read;
        Job {
            id: put("id", id),
            name: put("name", name),
            attempt: put("attempt", attempt),
            index: put("index", index),
            scheduler,
            sources,
        }
    }

    fn fill(&self, read: &mut Read, clues: &Clues<'_>, found: &Found) {
        let value = |part: &Option<Sourced>| part.as_ref().map(|sourced| sourced.value.clone());
        let id = value(&read.id);
        let fillers = self.candidates(found).filter(|rule| rule.fills);
        for more in fillers.filter_map(|rule| rule.read(clues, found.outermost, Extent::Useful)) {
            if more.id.is_some() && value(&more.id) != id {
                continue;
            }
            read.name = read.name.take().or(more.name);
            read.attempt = read.attempt.take().or(more.attempt);
            read.index = read.index.take().or(more.index);
        }
    }
}

/// Which patterns are in a path.
#[derive(Debug)]
struct Found {
    /// Of the built-in rules; `None` if there is no path.
    matching: Option<SetMatches>,
    /// Where the first of those starts that are held to be the outermost.
    outermost: Option<usize>,
}

fn environ_names(rules: &[Rule]) -> BTreeSet<String> {
    let names = rules.iter().flat_map(Rule::all_sources).filter_map(|source| match source {
        Source::Environ(name) => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

fn compiled(specs: &[RuleSpec], list: &str, users: bool) -> Result<Vec<Rule>, RuleError> {
    specs.iter().enumerate().map(|(nth, spec)| Rule::new(spec, list, nth, users)).collect()
}

fn compiled_own(own: &[RuleSpec]) -> Result<Vec<Rule>, RuleError> {
    const LIST: &str = "jobs.rules";
    if own.len() > Rules::MAX {
        let problem =
            format!("a list of {} is not allowed: must have 0 to {} rules", own.len(), Rules::MAX);
        return Err(RuleError { place: LIST.to_owned(), problem });
    }
    let rules = compiled(own, LIST, true)?;
    let mut names = HashSet::new();
    let twice = rules.iter().enumerate().find(|(_, rule)| !names.insert(rule.name.as_str()));
    if let Some((nth, twice)) = twice {
        return Err(RuleError {
            place: format!("{LIST}[{nth}].rule (rule \"{}\")", twice.name),
            problem: "another rule is called the same".to_owned(),
        });
    }
    Ok(rules)
}
