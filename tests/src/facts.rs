//! From a truth to what the record must say.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cgroup::Group;
use crate::record::Expected;
use crate::truth::{Truth, since_boot};

/// Who sent a fatal signal.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Real user id.
    pub uid: u32,
    /// Its parent.
    pub ppid: u32,
    /// Path of the cgroup that accounts its memory.
    pub cgroup: String,
}

impl From<&Truth> for Sender {
    fn from(truth: &Truth) -> Self {
        let Truth { pid, uid, ppid, .. } = *truth;
        Self { pid, uid, ppid, comm: truth.comm.clone(), cgroup: truth.cgroup.clone() }
    }
}

impl Expected {
    /// What every record of a death must say, whatever the cause. `node` is the name that the daemon was given.
    #[must_use]
    pub fn death(truth: &Truth, node: &str) -> Self {
        let (seen, started, tids) = (truth.seen, truth.started, truth.tids.clone());
        Self::new()
            .like("/id", "a UUID of version 7", |id| {
                id.as_str().is_some_and(|id| id.len() == 36 && id.as_bytes().get(14) == Some(&b'7'))
            })
            .is("/schema", 2)
            .like("/boot_id", "this boot's id", |id| id.as_str() == boot_id().as_deref())
            .is("/node", node)
            .like("/time", "a moment of the last minutes", is_recent)
            .like("/ktime_ns", &format!("between {seen:?} and now"), move |at| {
                as_duration(at).is_some_and(|at| seen <= at && at <= since_boot())
            })
            .is("/victim/pid", truth.pid)
            .is("/victim/tgid", truth.pid)
            .like("/victim/tid", &format!("one of {tids:?}"), move |tid| {
                tids.iter().any(|known| tid == known)
            })
            .maybe("/victim/ns_pid", truth.ns_pid)
            .like("/victim/start_time", "a moment of the last minutes", is_recent)
            .like(
                "/victim/start_ktime_ns",
                &format!("within 1/100 s after {started:?}"),
                move |at| {
                    as_duration(at)
                        .is_some_and(|at| started <= at && at < started + Duration::from_millis(11))
                },
            )
            .like("/victim/lifetime_seconds", "the time since its start, at most", move |lived| {
                lived.as_f64().is_some_and(|lived| {
                    (seen.saturating_sub(started).as_secs_f64() - 0.011
                        ..=(since_boot() - started).as_secs_f64())
                        .contains(&lived)
                })
            })
            .is("/victim/ppid", truth.ppid)
            .is("/victim/parent_comm", truth.parent_comm.clone())
            .is("/victim/comm", truth.comm.clone())
            .is("/victim/cmdline", truth.cmdline.clone())
            .is("/victim/uid", truth.uid)
            .is("/victim/oom_score_adj", truth.oom_score_adj)
            .is("/victim/core_dumped", false)
            .is("/victim/threads", truth.tids.len())
            .like("/evidence", "one fact or more, each a sentence", |facts| {
                facts.as_array().is_some_and(|facts| !facts.is_empty() && facts.iter().all(is_text))
            })
            .like("/advice", "some advice", is_text)
            .maybe_like("/missing", "fields, each with a reason", is_list_of_missing)
            .maybe_like("/memory/anon_bytes", "a plausible size", is_plausible_size)
            .maybe_like("/memory/file_bytes", "a plausible size", is_plausible_size)
            .maybe_like("/memory/shmem_bytes", "a plausible size", is_plausible_size)
            .maybe_like("/memory/swap_bytes", "a plausible size", is_plausible_size)
            .maybe_like("/memory/page_tables_bytes", "a plausible size", is_plausible_size)
            .maybe_like("/memory/peak_rss_bytes", "a plausible size", is_plausible_size)
            .is("/workload/cgroup", truth.cgroup.clone())
            .is("/workload/cgroup_id", truth.cgroup_id)
            .maybe_like("/workload/sources", "names, each with a source", is_map_of_text)
    }

    /// Ended by this signal.
    #[must_use]
    pub fn signal(self, number: u8, name: &str) -> Self {
        self.is("/victim/signal", number)
            .is("/victim/signal_name", name)
            .is("/victim/status", 128 + number)
    }

    /// Ended by itself with this code. Its memory could only be read after it was gone, so what rests on that may lack.
    #[must_use]
    pub fn exit_code(self, code: u8, truth: &Truth) -> Self {
        self.is("/victim/exit_code", code)
            .is("/victim/status", code)
            .maybe("/victim/cmdline", truth.cmdline.clone())
            .maybe("/victim/threads", truth.tids.len())
    }

    /// Killed by another process.
    #[must_use]
    pub fn killed_by(self, sender: &Sender) -> Self {
        self.is("/cause", "killed")
            .is("/killer/kind", "process")
            .is("/killer/pid", sender.pid)
            .is("/killer/comm", sender.comm.clone())
            .is("/killer/uid", sender.uid)
            .is("/killer/ppid", sender.ppid)
            .is("/killer/cgroup", sender.cgroup.clone())
    }

    /// Killed by itself.
    #[must_use]
    pub fn by_itself(self, cause: &str, truth: &Truth) -> Self {
        self.is("/cause", cause)
            .is("/killer/kind", "self")
            .is("/killer/pid", truth.pid)
            .is("/killer/comm", truth.comm.clone())
            .is("/killer/uid", truth.uid)
            .maybe("/killer/ppid", truth.ppid)
            .maybe("/killer/cgroup", truth.cgroup.clone())
    }

    /// Killed by the kernel at the limit of the cgroup `limited`, by an allocation of the victim's own.
    #[must_use]
    pub fn oom(self, truth: &Truth, limited: &Group, limit: u64) -> Self {
        let (seen, own, at_limit) = (truth.seen, truth.cgroup.clone(), limited.path());
        let own_tids = truth.tids.clone();
        self.signal(9, "SIGKILL")
            .is("/cause", "oom_memcg")
            .is("/killer/kind", "kernel")
            .is("/killer/trigger/pid", truth.pid)
            .like("/killer/trigger/tid", "a thread of the victim", move |tid| {
                own_tids.iter().any(|own| tid == own)
            })
            .is("/killer/trigger/comm", truth.comm.clone())
            .is("/killer/trigger/cgroup", truth.cgroup.clone())
            .like(
                "/oom/incident_ktime_ns",
                "before the death, after the victim was seen",
                move |at| as_duration(at).is_some_and(|at| seen <= at && at <= since_boot()),
            )
            .is("/oom/group", false)
            .maybe("/oom/constraint", "memcg")
            .like("/memory/anon_bytes", "most of the limit", move |size| {
                is_nearly(size, limit + BROUGHT_ALONG)
            })
            .like("/memory/peak_rss_bytes", "half the limit or more", move |size| {
                size.as_u64().is_some_and(|size| size >= limit / 2)
            })
            .like("/memory/usage_bytes", "just below the limit", move |size| is_nearly(size, limit))
            .is("/memory/limit_bytes", limit)
            .is("/memory/limit_cgroup", limited.path())
            .like(
                "/memory/levels",
                &format!("from {own} upwards, {at_limit} at its limit"),
                move |levels| levels_are_true(levels, &own, &at_limit, limit),
            )
    }

    /// Has this variable, and no other, on record, and from it its job.
    #[must_use]
    pub fn job_of_environ(self, name: &str, value: &str) -> Self {
        self.is("/victim/environ", json!({ name: value }))
            .is("/job/id", value)
            .is("/job/sources", json!({ "id": format!("environ:{name}") }))
    }
}

fn boot_id() -> Option<String> {
    Some(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

/// RFC 3339, and neither of the future nor older than any scenario. The slack is for clocks that are being set.
fn is_recent(time: &Value) -> bool {
    let Some(time) = time.as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok()) else {
        return false;
    };
    let age = jiff::Timestamp::now().duration_since(time).as_secs_f64();
    (-2.0..=1800.0).contains(&age)
}

fn as_duration(nanoseconds: &Value) -> Option<Duration> {
    nanoseconds.as_u64().map(Duration::from_nanos)
}

fn is_text(text: &Value) -> bool {
    text.as_str().is_some_and(|text| !text.trim().is_empty())
}

fn is_map_of_text(map: &Value) -> bool {
    map.as_object().is_some_and(|map| map.values().all(is_text))
}

fn is_list_of_missing(list: &Value) -> bool {
    let told = |item: &Value, key| item.get(key).is_some_and(is_text);
    list.as_array()
        .is_some_and(|list| list.iter().all(|item| told(item, "field") && told(item, "why")))
}

/// Not an error code taken for a number, nor pages of another process: no victim holds a TiB.
fn is_plausible_size(size: &Value) -> bool {
    size.as_u64().is_some_and(|size| size < 1 << 40)
}

fn is_nearly(size: &Value, limit: u64) -> bool {
    size.as_u64().is_some_and(|size| (limit / 4 * 3..=limit).contains(&size))
}

/// What a victim held before it moved to the cgroup, charged elsewhere, and the roughness of the kernel's own counters.
const BROUGHT_ALONG: u64 = 2 << 20;

/// Each level is the parent of the one before, and the one at its limit says so.
fn levels_are_true(levels: &Value, own: &str, at_limit: &str, limit: u64) -> bool {
    let Some(levels) = levels.as_array() else {
        return false;
    };
    let mut path = Some(own);
    let chain = levels.iter().all(|level| {
        let expected = path;
        path = expected
            .and_then(|path| path.rsplit_once('/'))
            .map(|(parent, _)| if parent.is_empty() { "/" } else { parent });
        level.get("cgroup").and_then(Value::as_str).is_some_and(|cgroup| Some(cgroup) == expected)
    });
    let hit =
        levels.iter().find(|level| level.get("cgroup").is_some_and(|cgroup| cgroup == at_limit));
    chain
        && hit.is_some_and(|level| {
            level.get("limit_bytes").and_then(Value::as_u64) == Some(limit)
                && level.get("usage_bytes").is_some_and(|usage| is_nearly(usage, limit))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_climb_from_the_victim_and_one_is_at_its_limit() {
        let levels = json!([
            {"cgroup": "/a/b", "usage_bytes": 999},
            {"cgroup": "/a", "usage_bytes": 1000, "limit_bytes": 1000},
            {"cgroup": "/", "usage_bytes": 5000},
        ]);
        assert!(levels_are_true(&levels, "/a/b", "/a", 1000));
        assert!(!levels_are_true(&levels, "/a/b", "/a", 2000), "another limit");
        assert!(!levels_are_true(&levels, "/a/b", "/a/b", 1000), "the wrong level");
        assert!(!levels_are_true(&levels, "/a/c", "/a", 1000), "another cgroup");
        assert!(!levels_are_true(&json!([]), "/a", "/a", 1000), "nothing");
    }

    #[test]
    fn a_time_is_recent_or_it_is_wrong() {
        assert!(is_recent(&json!(jiff::Timestamp::now().to_string())));
        assert!(!is_recent(&json!("1970-01-01T00:00:00Z")));
        assert!(!is_recent(&json!("soon")));
    }
}
