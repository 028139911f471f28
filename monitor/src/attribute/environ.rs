//! The allowed variables of a victim's environment, out of pieces of it as they come from the kernel.
//!
//! Nothing else is kept; of a JVM's options only those about memory are ([`options`]). What a [`Scanner`] holds, beside its result, is the variable that it is in the middle of, and of that at most
//! [`MAX_NAME`] bytes until its name has proved to be on the list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;

use super::options;
use crate::text;

/// Longest name, in bytes.
pub const MAX_NAME: usize = 64;
/// Longest value that is kept, in bytes; the rest is cut off.
pub const MAX_VALUE: usize = 256;
/// Most names on an allowlist, the default ones included.
pub const MAX_NAMES: usize = 256;

/// The names that are on every allowlist: ids of jobs, and what bounds a runtime's memory.
pub const DEFAULT_NAMES: &[&str] = &[
    "JOB_ID",
    "JOB_NAME",
    "RUN_ID",
    "TASK_ID",
    "WORKFLOW_ID",
    "ATTEMPT",
    "JOB_COMPLETION_INDEX",
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_STEP_ID",
    "SLURM_PROCID",
    "SLURM_JOB_NAME",
    "SLURM_JOB_USER",
    "SLURM_JOB_ACCOUNT",
    "SLURM_JOB_PARTITION",
    "PBS_JOBID",
    "PBS_JOBNAME",
    "PBS_ARRAY_INDEX",
    "LSB_JOBID",
    "LSB_JOBNAME",
    "LSB_JOBINDEX",
    "NOMAD_ALLOC_ID",
    "NOMAD_ALLOC_INDEX",
    "NOMAD_JOB_ID",
    "NOMAD_JOB_NAME",
    "NOMAD_GROUP_NAME",
    "NOMAD_TASK_NAME",
    "NOMAD_NAMESPACE",
    "AWS_BATCH_JOB_ID",
    "AWS_BATCH_JOB_ATTEMPT",
    "AWS_BATCH_JQ_NAME",
    "AWS_BATCH_JOB_ARRAY_INDEX",
    "BUILDKITE_JOB_ID",
    "BUILDKITE_RETRY_COUNT",
    "CI_JOB_ID",
    "CI_JOB_NAME",
    "GITHUB_RUN_ID",
    "GITHUB_JOB",
    "GITHUB_RUN_ATTEMPT",
    "AIRFLOW_CTX_DAG_ID",
    "AIRFLOW_CTX_TASK_ID",
    "AIRFLOW_CTX_DAG_RUN_ID",
    "AIRFLOW_CTX_TRY_NUMBER",
    // What bounds a runtime's memory, and how many workers share it: for the advice, and for who reads the record.
    "NODE_OPTIONS",
    "UV_THREADPOOL_SIZE",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "GOMEMLIMIT",
    "GOGC",
    "PYTHONMALLOC",
    "WEB_CONCURRENCY",
    "MALLOC_ARENA_MAX",
    "MALLOC_TRIM_THRESHOLD_",
];

/// The names that may be kept. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowlist(Arc<BTreeSet<String>>);

/// Why a list of names is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AllowlistError {
    /// Nothing, or holds `=` or a zero byte: no variable can be called that.
    #[error(
        "{name:?} cannot be the name of an environment variable: one or more bytes, without `=` and NUL"
    )]
    NotAName {
        /// As given.
        name: String,
    },
    /// Too long.
    #[error(
        "the variable name that begins with {begin:?} has {len} bytes; at most {MAX_NAME} are allowed"
    )]
    TooLong {
        /// Its first characters.
        begin: String,
        /// Its length in bytes.
        len: usize,
    },
    /// Too many.
    #[error("{count} variable names, the {defaults} default ones included; at most {MAX_NAMES} are allowed", defaults = DEFAULT_NAMES.len())]
    TooMany {
        /// How many different ones.
        count: usize,
    },
}

impl Allowlist {
    /// [`DEFAULT_NAMES`] and the user's own.
    ///
    /// # Errors
    /// If a name cannot be one, or there are too many.
    pub fn new(own: &[String]) -> Result<Self, AllowlistError> {
        for name in own {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(AllowlistError::NotAName {
                    name: name.chars().take(MAX_NAME).collect(),
                });
            }
            if name.len() > MAX_NAME {
                return Err(AllowlistError::TooLong {
                    begin: name.chars().take(16).collect(),
                    len: name.len(),
                });
            }
        }
        let names: BTreeSet<String> = DEFAULT_NAMES
            .iter()
            .map(|name| (*name).to_owned())
            .chain(own.iter().cloned())
            .collect();
        if names.len() > MAX_NAMES {
            return Err(AllowlistError::TooMany { count: names.len() });
        }
        Ok(Self(Arc::new(names)))
    }

    /// Whether a variable of this name may be kept.
    #[must_use]
    pub fn contains(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.0.contains(name))
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environ {
    /// The allowed variables. Of one that is there twice the first, as getenv(3) has it.
    pub variables: BTreeMap<String, String>,
    /// Whether the whole environment was seen. If not, a variable that is missing here need not be missing there.
    pub complete: bool,
}

/// Where in a variable the scanner is.
#[derive(Debug)]
enum State {
    /// In its name, or in what may be one: these bytes of it.
    Name(Vec<u8>),
    /// In the value of an allowed one: its name, the bytes of the value that are looked at, and whether there were more.
    Value(String, Vec<u8>, bool),
    /// In one that is not kept, or whose beginning was not seen.
    Skip,
}

/// Picks the allowed variables out of an environment that comes in pieces.
#[derive(Debug)]
pub struct Scanner {
    allowed: Allowlist,
    variables: BTreeMap<String, String>,
    state: State,
    /// Offset of the byte that comes next.
    next: u64,
    gaps: bool,
}

impl Scanner {
    /// At the start of an environment.
    #[must_use]
    pub fn new(allowed: &Allowlist) -> Self {
        Self {
            allowed: allowed.clone(),
            variables: BTreeMap::new(),
            state: State::Name(Vec::new()),
            next: 0,
            gaps: false,
        }
    }

    /// Takes the piece that begins at byte `offset` of the environment. A piece beyond the expected one leaves a gap: the variable
    /// that straddles it is dropped. What was taken before is not taken again, so pieces must come in order. An empty piece
    /// says nothing; what could not be read shows as a gap once a later piece comes, or in [`Self::finish`].
    pub fn feed(&mut self, offset: u32, bytes: &[u8]) {
        let offset = u64::from(offset);
        if bytes.is_empty() {
            return;
        }
        if offset > self.next {
            self.gaps = true;
            self.state = State::Skip;
            self.next = offset;
        }
        let known = usize::try_from(self.next - offset).unwrap_or(usize::MAX);
        let Some(new) = bytes.get(known..) else { return };
        self.next += new.len() as u64;
        let mut parts = new.split(|byte| *byte == 0).peekable();
        while let Some(part) = parts.next() {
            self.take(part);
            if parts.peek().is_some() {
                self.end_variable();
            }
        }
    }

    /// What was found. `total` is the length of the environment in bytes, as the process has it: fewer bytes seen than that, or a gap
    /// in them, and the result is not complete; a variable that was cut off so is dropped.
    #[must_use]
    pub fn finish(mut self, total: u64) -> Environ {
        let whole = self.next >= total;
        if whole {
            self.end_variable();
        }
        Environ { variables: self.variables, complete: whole && !self.gaps }
    }

    /// Takes bytes of one variable; they hold no zero.
    fn take(&mut self, mut bytes: &[u8]) {
        if let State::Name(begin) = &mut self.state {
            let equals = bytes.iter().position(|byte| *byte == b'=');
            let (name, rest) = bytes.split_at(equals.unwrap_or(bytes.len()));
            if begin.len() + name.len() > MAX_NAME {
                self.state = State::Skip;
            } else {
                begin.extend_from_slice(name);
                if equals.is_some() {
                    self.state = Self::after_name(&self.allowed, &self.variables, begin);
                }
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        if let State::Value(name, value, cut) = &mut self.state {
            let most = if options::are(name) { options::MAX_READ } else { MAX_VALUE };
            let room = most.saturating_sub(value.len()).min(bytes.len());
            value.extend_from_slice(bytes.get(..room).unwrap_or_default());
            *cut |= room < bytes.len();
        }
    }

    fn after_name(allowed: &Allowlist, found: &BTreeMap<String, String>, name: &[u8]) -> State {
        match std::str::from_utf8(name) {
            Ok(name) if allowed.contains(name.as_bytes()) && !found.contains_key(name) => {
                State::Value(name.to_owned(), Vec::new(), false)
            }
            _ => State::Skip,
        }
    }

    fn end_variable(&mut self) {
        let ended = std::mem::replace(&mut self.state, State::Name(Vec::new()));
        let State::Value(name, value, cut) = ended else { return };
        let kept = if options::are(&name) {
            options::about_memory(&value, cut)
        } else {
            Some(bounded(&value))
        };
        if let Some(kept) = kept {
            self.variables.insert(name, kept);
        }
    }
}

/// As [`text::from_bytes`], cut to [`MAX_VALUE`] bytes without splitting a character or a `\xNN`. Of a character that the bound on `value`
/// has cut in two at most three bytes are left, and the four of its `\xNN` do not fit.
fn bounded(value: &[u8]) -> String {
    let mut kept = String::new();
    for chunk in value.utf8_chunks() {
        let characters = chunk.valid().chars().map(String::from);
        let others = chunk.invalid().iter().map(|byte| text::from_bytes(&[*byte]));
        for piece in characters.chain(others) {
            if kept.len() + piece.len() > MAX_VALUE {
                return kept;
            }
            kept.push_str(&piece);
        }
    }
    kept
}
