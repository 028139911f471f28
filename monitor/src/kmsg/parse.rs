//! Lines of the kernel log → what they say. Pure; nothing that a process can choose (its name, the name of a cgroup) can pass for another
//! part of a line, or the line says nothing.
//!
//! The form of a record is that of Documentation/ABI/testing/dev-kmsg; the lines are those of mm/oom_kill.c and mm/memcontrol.c since 5.4.

use crate::death::Constraint;

/// Longest name of a task, bytes.
const COMM: usize = 15;

/// One record of `/dev/kmsg`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number; the next one has the next.
    pub sequence: u64,
    /// µs since boot, by the kernel's own clock, which does not run during suspend.
    pub time_us: u64,
    /// Whether the kernel wrote it. What a process writes to `/dev/kmsg` can never have the kernel's facility.
    pub by_kernel: bool,
    /// The line, with the kernel's escapes undone.
    pub text: Vec<u8>,
}

/// A line that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// `… invoked oom-killer: …`: what follows is of another decision.
    Invoked,
    /// `memory: usage 32768kB, limit 32768kB, failcnt 20`, or `memory+swap: …` on v1: of the cgroup at its limit.
    Usage {
        /// Whether it is of memory and swap together.
        memsw: bool,
        /// Bytes.
        usage: u64,
        /// Bytes; `None` is no limit.
        limit: Option<u64>,
    },
    /// `oom-kill:constraint=…`. Rate limited: ten in five seconds.
    Decision(Decision),
    /// `…: Killed process N (name) total-vm:…`. Never left out.
    Killed(Killed),
    /// `…: OOM victim N (name) is already exiting. Skip killing the task`.
    Skipped,
    /// `Tasks in … are going to be killed due to memory.oom.group set`.
    Group {
        /// Path of the cgroup.
        path: Vec<u8>,
    },
}

/// What the kernel decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Why.
    pub constraint: Constraint,
    /// The cgroup whose limit was hit.
    pub limit: Option<Vec<u8>>,
    /// The victim's cgroup, of the memory controller. `None`: names in the line leave open where it begins and ends.
    pub cgroup: Option<Vec<u8>>,
    /// The victim's process id.
    pub pid: u32,
    /// Its user, as the first user namespace sees it.
    pub uid: u32,
}

/// A kill. Bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Killed {
    /// Whether a memory cgroup's limit was hit; else the host, or the nodes that were allowed, had no memory.
    pub memcg: bool,
    /// Id of a thread of it that was alive: the process id, unless its first thread had ended.
    pub tid: u32,
    /// Name of that thread.
    pub comm: Vec<u8>,
    /// Anonymous memory.
    pub anon: u64,
    /// File pages.
    pub file: u64,
    /// Shared memory.
    pub shmem: u64,
    /// Its user.
    pub uid: Option<u32>,
    /// Page tables.
    pub page_tables: Option<u64>,
    /// Its preference as a victim.
    pub oom_score_adj: Option<i32>,
}

/// Reads one record: `priority,sequence,time,flags[,…];text`, then lines of its own that begin with a blank.
#[must_use]
pub fn entry(record: &[u8]) -> Option<Entry> {
    let end = record.iter().position(|byte| *byte == b'\n').unwrap_or(record.len());
    let line = record.get(..end)?;
    let semicolon = line.iter().position(|byte| *byte == b';')?;
    let (head, text) =
        (std::str::from_utf8(line.get(..semicolon)?).ok()?, line.get(semicolon + 1..)?);
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    Some(Entry {
        sequence: fields.next()?.parse().ok()?,
        time_us: fields.next()?.parse().ok()?,
        // Facility above the three bits of the level; 0 is LOG_KERN.
        by_kernel: priority >> 3 == 0,
        text: unescape(text),
    })
}

/// Undoes `\xNN`, by which the kernel writes what is not printable, and the backslash.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    let digit =
        |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let Some((first, tail)) = rest.split_first() {
        if let [b'x', high, low, after @ ..] = tail
            && *first == b'\\'
            && let (Some(high), Some(low)) = (digit(high), digit(low))
        {
            bytes.push(high << 4 | low);
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

/// The path of a process in the hierarchy of this number, from `/proc/PID/cgroup`: lines of `number:controllers:path`.
#[must_use]
pub fn cgroup_of(text: &[u8], hierarchy: u32) -> Option<Vec<u8>> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (id, _) = number(fields.next()?)?;
        let path = fields.nth(1)?;
        // A cgroup that was removed around it has this behind its path.
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        (id == u64::from(hierarchy) && path.starts_with(b"/")).then(|| path.to_owned())
    })
}

/// What a line says, if it matters here.
#[must_use]
pub fn line(text: &[u8]) -> Option<Line> {
    if let Some(rest) = text.strip_prefix(b"oom-kill:constraint=") {
        return decision(rest).map(Line::Decision);
    }
    for (prefix, memcg) in [
        (b"Memory cgroup out of memory: ".as_slice(), true),
        (b"Out of memory: ", false),
        (b"Out of memory (oom_kill_allocating_task): ", false),
    ] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return if rest.starts_with(b"OOM victim ") {
                Some(Line::Skipped)
            } else {
                killed(rest, memcg).map(Line::Killed)
            };
        }
    }
    if let Some(rest) = text.strip_prefix(b"Tasks in ") {
        let path = rest.strip_suffix(b" are going to be killed due to memory.oom.group set")?;
        return path.starts_with(b"/").then(|| Line::Group { path: path.to_owned() });
    }
    for (prefix, memsw) in [(b"memory: usage ".as_slice(), false), (b"memory+swap: usage ", true)] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return usage(rest, memsw);
        }
    }
    // The name before it may be anything.
    find(text, b" invoked oom-killer: gfp_mask=").filter(|at| *at <= COMM).map(|_| Line::Invoked)
}

/// `32768kB, limit 32768kB, failcnt 20`.
fn usage(rest: &[u8], memsw: bool) -> Option<Line> {
    let (usage, rest) = number(rest)?;
    let (limit, _) = number(rest.strip_prefix(b"kB, limit ")?)?;
    let bytes = |kib: u64| kib.checked_mul(1024);
    // PAGE_COUNTER_MAX, rounded down to whole pages, is no limit.
    let limit = bytes(limit).filter(|limit| *limit < (i64::MAX - (1 << 20)).unsigned_abs());
    Some(Line::Usage { memsw, usage: bytes(usage)?, limit })
}

/// `Killed process N (name) total-vm:…`. The name may hold anything, so what follows it is looked for from the end.
fn killed(rest: &[u8], memcg: bool) -> Option<Killed> {
    let (tid, rest) = number(rest.strip_prefix(b"Killed process ")?)?;
    let rest = rest.strip_prefix(b" (")?;
    let end = rfind(rest, b") total-vm:")?;
    let (comm, rest) = (rest.get(..end)?, rest.get(end + b") total-vm:".len()..)?);
    let (_, rest) = number(rest)?;
    let (anon, rest) = number(rest.strip_prefix(b"kB, anon-rss:")?)?;
    let (file, rest) = number(rest.strip_prefix(b"kB, file-rss:")?)?;
    let (shmem, rest) = number(rest.strip_prefix(b"kB, shmem-rss:")?)?;
    let rest = rest.strip_prefix(b"kB")?;
    let kib = |count: u64| count.saturating_mul(1024);
    let mut killed = Killed {
        memcg,
        tid: u32::try_from(tid).ok()?,
        comm: Some(comm).filter(|comm| comm.len() <= COMM)?.to_owned(),
        anon: kib(anon),
        file: kib(file),
        shmem: kib(shmem),
        uid: None,
        page_tables: None,
        oom_score_adj: None,
    };
    for field in std::str::from_utf8(rest).ok()?.split([',', ' ']) {
        match field.split_once(':') {
            Some(("UID", uid)) => killed.uid = uid.parse().ok(),
            Some(("pgtables", size)) => {
                killed.page_tables = size.strip_suffix("kB").and_then(|n| n.parse().ok()).map(kib);
            }
            Some(("oom_score_adj", adj)) => killed.oom_score_adj = adj.parse().ok(),
            _ => {}
        }
    }
    Some(killed)
}

/// `CONSTRAINT_MEMCG,nodemask=…,cpuset=…,mems_allowed=…,oom_memcg=/a,task_memcg=/a/b,task=name,pid=N,uid=N`. Everything from `cpuset=` on may
/// be longer than a record can be, and is then cut.
fn decision(rest: &[u8]) -> Option<Decision> {
    let comma = rest.iter().position(|byte| *byte == b',')?;
    let constraint = match rest.get(..comma)? {
        b"CONSTRAINT_NONE" => Constraint::None,
        b"CONSTRAINT_CPUSET" => Constraint::Cpuset,
        b"CONSTRAINT_MEMORY_POLICY" => Constraint::MemoryPolicy,
        b"CONSTRAINT_MEMCG" => Constraint::Memcg,
        _ => return None,
    };
    let at = rfind(rest, b",uid=")?;
    let (uid, end) = number(rest.get(at + b",uid=".len()..)?)?;
    let rest = rest.get(..at).filter(|_| end.is_empty())?;
    let at = rfind(rest, b",pid=")?;
    let (pid, end) = number(rest.get(at + b",pid=".len()..)?)?;
    let rest = rest.get(..at).filter(|_| end.is_empty())?;
    let (limit, cgroup) = paths(rest, constraint).unzip();
    Some(Decision {
        constraint,
        limit: limit.flatten(),
        cgroup,
        pid: u32::try_from(pid).ok()?,
        uid: u32::try_from(uid).ok()?,
    })
}

/// The cgroup at its limit and the victim's, if there is but one way to read them. `text` ends with the victim's name.
fn paths(text: &[u8], constraint: Constraint) -> Option<(Option<Vec<u8>>, Vec<u8>)> {
    let text = one(without_name(text))?;
    let rest = after_cpuset(text)?;
    if let Some(path) = rest.strip_prefix(b",global_oom,task_memcg=") {
        return Some((None, path.to_owned())).filter(|_| constraint != Constraint::Memcg);
    }
    let rest = rest.strip_prefix(b",oom_memcg=")?;
    // A cgroup may be named `x,task_memcg=`; the victim's is at or below the one at its limit.
    let both = splits(rest, b",task_memcg=").filter(|(limit, cgroup)| is_below(cgroup, limit));
    one(both).map(|(limit, cgroup)| (Some(limit.to_owned()), cgroup.to_owned()))
}

/// `text` before `,task=` and a name of at most [`COMM`] bytes: one way for each place where that stands.
fn without_name(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    splits(text, b",task=").filter(|(_, name)| name.len() <= COMM).map(|(before, _)| before)
}

/// What follows `,mems_allowed=` and its list of numbers. A cpuset's name has no `/` in it, and what follows has one.
fn after_cpuset(text: &[u8]) -> Option<&[u8]> {
    splits(text, b",mems_allowed=").find_map(|(_, rest)| {
        let list =
            rest.iter().take_while(|byte| byte.is_ascii_digit() || b",-".contains(byte)).count();
        // The comma that follows is no part of the list.
        let rest = rest.get(list.checked_sub(1)?..)?;
        let known = [b",global_oom,task_memcg=/".as_slice(), b",oom_memcg=/"];
        known.iter().any(|start| rest.starts_with(start)).then_some(rest)
    })
}

fn is_below(path: &[u8], ancestor: &[u8]) -> bool {
    let is_path = path.starts_with(b"/") && ancestor.starts_with(b"/");
    let rest = path.strip_prefix(if ancestor == b"/" { b"".as_slice() } else { ancestor });
    is_path && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The only item.
fn one<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

/// Every way to split at `needle`, from the left.
fn splits<'a>(text: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let places = text.windows(needle.len()).enumerate().filter(move |(_, part)| *part == needle);
    places.filter_map(move |(at, _)| Some((text.get(..at)?, text.get(at + needle.len()..)?)))
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|part| part == needle)
}

fn rfind(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).rposition(|part| part == needle)
}

/// The number at the start, and the rest.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
