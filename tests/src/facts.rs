//! From a truth to what the record must say.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cgroup::Group;
use crate::daemon;
use crate::record::Expected;
use crate::sender::Sender;
use crate::truth::{Truth, since_boot};

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
            .is("/state", "dead")
            .is("/confidence", "certain")
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
            .maybe("/victim/pid_ns", truth.pid_ns)
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
            .like("/evidence", "one fact or more, each a sentence", is_texts)
            .like("/advice", "some advice", is_text)
            .maybe_like("/missing", "fields, each with a reason", is_list_of_missing)
            .maybe_like("/memory/anon_bytes", "a plausible size", is_plausible_size)
            .maybe_like("/memory/file_bytes", "a plausible size", is_plausible_size)
            .maybe_like("/memory/shmem_bytes", "a plausible size", is_plausible_size)
            .maybe_like("/memory/swap_bytes", "a plausible size", is_plausible_size)
            .maybe_like("/memory/page_tables_bytes", "a plausible size", is_plausible_size)
            .maybe_like("/memory/peak_rss_bytes", "a plausible size", is_plausible_size)
            .with_story(truth.pid)
            .is("/workload/cgroup", truth.cgroup.clone())
            .is("/workload/cgroup_id", truth.cgroup_id)
            .maybe_like("/workload/sources", "names, each with a source", is_map_of_text)
    }

    /// What was seen of its cgroup, where the record has it.
    #[must_use]
    pub fn with_story(self, pid: u32) -> Self {
        self.maybe_like("/memory/cgroup", "sizes that fit together", is_composition)
            .maybe_like(
                "/memory/processes",
                "the victim and others, the largest first",
                move |list| is_table(list, pid),
            )
            .maybe_like("/memory/process_count", "one or more", |count| {
                count.as_u64().is_some_and(|count| count >= 1)
            })
            .maybe_like("/memory/history", "times that fall and sizes", is_history)
            .maybe_like("/memory/warned_seconds", "no negative time", |seconds| {
                seconds.as_f64().is_some_and(|seconds| seconds >= 0.0)
            })
            .maybe_like("/memory/host", "the host's memory", is_host)
            .maybe_like("/findings", "rules, each with evidence and advice", is_findings)
    }

    /// Ended by this signal.
    #[must_use]
    pub fn signal(self, number: u8, name: &str) -> Self {
        self.is("/victim/signal", number)
            .is("/victim/signal_name", name)
            .is("/victim/status", 128 + number)
            .explained(128 + number, name)
    }

    /// The status is explained.
    fn explained(self, status: u8, name: &str) -> Self {
        let start = format!("{status} = 128 + {}: {name}", status - 128);
        self.like("/victim/status_meaning", &format!("{start}…"), move |text| {
            text.as_str().is_some_and(|text| text.starts_with(&start))
        })
    }

    /// Not proven, and says what is not.
    #[must_use]
    pub fn inferred(self) -> Self {
        self.is("/confidence", "inferred").like("/inferred", "a sentence or more", is_texts)
    }

    /// SIGTERM came before the SIGKILL, `grace` seconds at least (and not half a second longer), from `sender`.
    #[must_use]
    pub fn stopped_before(self, sender: &Sender, grace: f64, ignored: bool) -> Self {
        self.is("/stop/pid", sender.pid)
            .is("/stop/comm", sender.comm.clone())
            .is("/stop/uid", sender.uid)
            .is("/stop/ignored", ignored)
            .like("/stop/grace_seconds", &format!("{grace} or a little more"), move |told| {
                let slack = crate::wait::scaled(Duration::from_millis(500)).as_secs_f64();
                told.as_f64().is_some_and(|told| (grace..grace + slack).contains(&told))
            })
    }

    /// Follows from the death of this process, which has this record.
    #[must_use]
    pub fn follows(self, role: &str, record: &Value) -> Self {
        let of = |pointer: &str| record.pointer(pointer).cloned().unwrap_or_default();
        self.is("/related/role", role)
            .is("/related/id", of("/id"))
            .is("/related/pid", of("/victim/pid"))
            .is("/related/comm", of("/victim/comm"))
            .is("/related/status", of("/victim/status"))
            .is("/related/cause", of("/cause"))
    }

    /// Like [`Expected::follows`], of a process that may have ended later: then only its name is known.
    #[must_use]
    pub fn fell_with(self, role: &str, record: &Value) -> Self {
        let of = |pointer: &str| record.pointer(pointer).cloned().unwrap_or_default();
        self.is("/related/role", role)
            .is("/related/pid", of("/victim/pid"))
            .is("/related/comm", of("/victim/comm"))
            .maybe("/related/id", of("/id"))
            .maybe("/related/status", of("/victim/status"))
            .maybe("/related/cause", of("/cause"))
    }

    /// No signal was delivered, so there was no moment to read its words.
    #[must_use]
    pub fn wordless(self, truth: &Truth) -> Self {
        self.maybe("/victim/cmdline", truth.cmdline.clone())
            .maybe("/victim/threads", truth.tids.len())
    }

    /// Follows from the end of this process, which has no record: it exited with this.
    #[must_use]
    pub fn follows_exit(self, role: &str, truth: &Truth, status: u8) -> Self {
        self.is("/related/role", role)
            .is("/related/pid", truth.pid)
            .is("/related/comm", truth.comm.clone())
            .is("/related/status", status)
    }

    /// The kernel sent it.
    #[must_use]
    pub fn by_kernel(self, cause: &str) -> Self {
        self.is("/cause", cause).is("/killer/kind", "kernel").is("/killer/via", "kernel")
    }

    /// Ended by itself with this code. Its memory could only be read after it was gone, so what rests on that may lack.
    #[must_use]
    pub fn exit_code(self, code: u8, truth: &Truth) -> Self {
        self.is("/victim/exit_code", code)
            .is("/victim/status", code)
            .explained(code, "")
            .wordless(truth)
    }

    /// Killed by another process.
    #[must_use]
    pub fn killed_by(self, sender: &Sender) -> Self {
        self.is("/cause", "killed").sent_by("process", sender)
    }

    /// A process sent it.
    #[must_use]
    pub fn sent_by(self, kind: &str, sender: &Sender) -> Self {
        self.is("/killer/kind", kind)
            .is("/killer/via", sender.via)
            .is("/killer/pid", sender.pid)
            .is("/killer/comm", sender.comm.clone())
            .is("/killer/uid", sender.uid)
            .is("/killer/ppid", sender.ppid)
            .is("/killer/cgroup", sender.cgroup.clone())
            .is("/killer/ancestors", sender.told_ancestors())
            // Of whatever the tests themselves run in.
            .maybe_like("/killer/container_id", "a container", is_text)
            .maybe_like("/killer/unit", "a unit", is_text)
    }

    /// Killed by itself, by way of `via`.
    #[must_use]
    pub fn by_itself(self, cause: &str, via: &'static str, truth: &Truth) -> Self {
        self.is("/cause", cause).sent_by("self", &Sender::from(truth).via(via))
    }

    /// Killed by the kernel at the limit of the cgroup `limited`, by an allocation of the victim's own.
    #[must_use]
    pub fn oom(self, truth: &Truth, limited: &Group, limit: u64) -> Self {
        let (seen, own, at_limit) = (truth.seen, truth.cgroup.clone(), limited.path());
        let own_tids = truth.tids.clone();
        self.signal(9, "SIGKILL")
            .by_kernel("oom_memcg")
            .limit_named("memcg")
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
            .is("/memory/cgroup/cgroup", limited.path())
            .like("/memory/cgroup/delay_ms", "less than a second", |delay| {
                let most = crate::wait::scaled(Duration::from_secs(1));
                delay.as_f64().is_some_and(|ms| (0.0..1e3 * most.as_secs_f64()).contains(&ms))
            })
            .like("/memory/processes", "the victim and others, the largest first", {
                let pid = truth.pid;
                move |list| is_table(list, pid)
            })
            .is("/memory/history/cgroup", limited.path())
            .is("/memory/history/limit_bytes", limit)
            .like("/memory/warned_seconds", "no negative time", |seconds| {
                seconds.as_f64().is_some_and(|seconds| seconds >= 0.0)
            })
            .like("/memory/host", "the host's memory", is_host)
    }

    /// Its cgroup was removed at once, before or after it was looked at: what was seen of it is true, or the record says what it lacks.
    ///
    /// # Errors
    /// If it has neither.
    pub fn compare_removed_at_once(self, limited: &Group, record: &Value) -> Result<()> {
        if record.pointer("/memory/cgroup").is_some() {
            return self.compare(record);
        }
        let lacks = |missing: &Value| missing["field"] == "memory.cgroup";
        let said = record["missing"].as_array().is_some_and(|list| list.iter().any(lacks));
        ensure!(said, "{} was not looked at, and `missing` does not say so", limited.path());
        self.absent("/memory/cgroup").compare(record)
    }

    /// Its cgroup was looked at only when a daemon was at work again, `away` after the kill at most.
    #[must_use]
    pub fn looked_at_late(self, away: Duration) -> Self {
        self.like("/memory/cgroup/delay_ms", "as long as no daemon was at work", move |delay| {
            let most = crate::wait::scaled(away);
            delay.as_f64().is_some_and(|ms| (0.0..1e3 * most.as_secs_f64()).contains(&ms))
        })
    }

    /// The kernel names the constraint where the daemon could hook that; elsewhere it is inferred.
    #[must_use]
    pub fn limit_named(self, constraint: &str) -> Self {
        if daemon::hears_constraints() {
            self.is("/oom/constraint", constraint)
        } else {
            self.inferred()
        }
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

fn is_texts(texts: &Value) -> bool {
    texts.as_array().is_some_and(|texts| !texts.is_empty() && texts.iter().all(is_text))
}

fn is_map_of_text(map: &Value) -> bool {
    map.as_object().is_some_and(|map| map.values().all(is_text))
}

fn is_list_of_missing(list: &Value) -> bool {
    let told = |item: &Value, key| item.get(key).is_some_and(is_text);
    list.as_array()
        .is_some_and(|list| list.iter().all(|item| told(item, "field") && told(item, "why")))
}

/// What a cgroup is made of is no more than all of it, but for the roughness of per-CPU counts.
fn is_composition(cgroup: &Value) -> bool {
    let size = |key: &str| cgroup.get(key).and_then(Value::as_u64);
    let parts = ["anon_bytes", "file_bytes", "shmem_bytes"].map(|key| size(key).unwrap_or(0));
    let all = size("usage_bytes").unwrap_or(u64::MAX);
    let peak = size("peak_bytes").unwrap_or(u64::MAX);
    parts.iter().sum::<u64>() <= all.saturating_add(ROUGH)
        && all <= peak.saturating_add(ROUGH)
        && size("unreclaimable_bytes").is_none_or(|firm| firm <= all)
        && size("working_set_bytes").is_none_or(|set| set <= all)
}

/// At most ten, the largest first, the one with this pid and no other marked as the victim.
fn is_table(list: &Value, victim: u32) -> bool {
    let Some(list) = list.as_array() else { return false };
    let size = |process: &Value| process.get("rss_bytes").and_then(Value::as_u64);
    let died = list.iter().filter(|process| process.get("victim").is_some_and(|v| v == true));
    let died: Vec<_> = died.filter_map(|process| process.get("pid")?.as_u64()).collect();
    list.len() <= 10
        && list.iter().is_sorted_by(|a, b| size(a) >= size(b))
        && died == [u64::from(victim)]
}

/// Times before the death, the earliest first, none older than five minutes, each with a size.
fn is_history(history: &Value) -> bool {
    let times = |key: &str| -> Vec<f64> {
        let list = history.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|at| at.get("ago_seconds")?.as_f64()).collect()
    };
    let (usage, kinds) = (times("usage"), times("kinds"));
    !usage.is_empty()
        && [usage, kinds].iter().all(|times| {
            times.is_sorted_by(|a, b| a >= b) && times.iter().all(|ago| (0.0..=301.0).contains(ago))
        })
}

fn is_host(host: &Value) -> bool {
    let size = |key: &str| host.get(key).and_then(Value::as_u64);
    match (size("total_bytes"), size("available_bytes")) {
        (Some(total), Some(available)) => available <= total && total > 0,
        _ => false,
    }
}

fn is_findings(findings: &Value) -> bool {
    let told = |finding: &Value, key| finding.get(key).is_some_and(is_text);
    let whole =
        |finding: &Value| ["rule", "evidence", "advice"].iter().all(|key| told(finding, key));
    findings.as_array().is_some_and(|all| (1..=4).contains(&all.len()) && all.iter().all(whole))
}

/// Not an error code taken for a number, nor pages of another process: no victim holds a TiB.
fn is_plausible_size(size: &Value) -> bool {
    size.as_u64().is_some_and(|size| size < 1 << 40)
}

fn is_nearly(size: &Value, limit: u64) -> bool {
    size.as_u64().is_some_and(|size| (limit / 4 * 3..=limit).contains(&size))
}

/// Counters of a cgroup are kept for each CPU in batches of 64 pages (mm/memcontrol.c), and are read one after another.
const ROUGH: u64 = 8 << 20;

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
