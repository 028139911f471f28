//! A cgroup as the cells of a row. Pure. What comes from a stranger is made safe by who shows it.

use crate::api::{CgroupUse, Cgroups};
use crate::cli::deaths::row::place_of;
use crate::cli::story::{bytes, change};

/// The columns.
pub(super) const NAMES: &[&str] =
    &["WHERE", "SHARE", "USED", "LIMIT", "GROWTH/MIN", "LEFT", "NEAR", "CGROUP"];

/// A time left beyond these seconds, a day, is no news.
const HORIZON: f64 = 86_400.0;

/// The cells of a cgroup, as many as there are columns.
pub(super) fn cells(cgroup: &CgroupUse) -> Vec<String> {
    let known = |amount: Option<u64>| amount.map_or_else(|| "-".to_owned(), bytes);
    let left = cgroup.seconds_left.filter(|left| *left <= HORIZON);
    vec![
        place(cgroup),
        cgroup.share.map_or_else(|| "-".to_owned(), percent),
        bytes(cgroup.unreclaimable_bytes.unwrap_or(cgroup.usage_bytes)),
        known(cgroup.limit_bytes),
        cgroup.growth_bytes_per_minute.map_or_else(|| "-".to_owned(), change),
        left.map_or_else(|| "-".to_owned(), in_short),
        if cgroup.near { "near" } else { "" }.to_owned(),
        cgroup.cgroup.clone(),
    ]
}

/// The best name of a cgroup.
pub(super) fn place(cgroup: &CgroupUse) -> String {
    place_of(&cgroup.workload, Some(&cgroup.cgroup))
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", (share * 100.0).clamp(0.0, 999.0))
}

/// Seconds as two digits and a unit.
pub(super) fn in_short(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{:.0} s", s.max(0.0)),
        s if s < 6_000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", (s / 3_600.0).min(9_999.0)),
    }
}

/// How many cgroups there are, and the host, in a line: what presses most first, for its end may be cut.
pub(super) fn summary(cgroups: &Cgroups) -> String {
    let near = cgroups.cgroups.iter().filter(|cgroup| cgroup.near).count();
    let refused = match cgroups.refused {
        0 => String::new(),
        refused => format!(", no room for {refused} more"),
    };
    let host = cgroups.host.map(|host| {
        let swap = match host.swap_total_bytes {
            0 => "no swap".to_owned(),
            total => format!("swap {} free of {}", bytes(host.swap_free_bytes), bytes(total)),
        };
        let kills = host.oom_kills.map(|kills| format!(", {kills} OOM kills since boot"));
        format!(
            "; host: {} available of {}, {swap}{}",
            bytes(host.available_bytes),
            bytes(host.total_bytes),
            kills.unwrap_or_default()
        )
    });
    let followed = cgroups.followed;
    format!("{near} near their limit of {followed} followed{refused}{}", host.unwrap_or_default())
}
