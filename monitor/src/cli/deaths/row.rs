//! A death as the cells of a line. Pure. What comes from a stranger is made safe by who shows it.

use jiff::tz::TimeZone;

use crate::cli::story::{bytes, signal};
use crate::death::{Death, KillerKind, MemoryStory, State, Workload};

/// Columns of the list.
pub(crate) const NAMES: &[&str] = &["TIME", "CAUSE", "VICTIM", "WHERE", "JOB", "LIMIT/USED"];
/// Columns of the wide list.
pub(crate) const WIDE_NAMES: &[&str] =
    &["TIME", "CAUSE", "VICTIM", "WHERE", "JOB", "LIMIT/USED", "NODE", "KILLER", "EXIT", "ID"];

/// What is not known.
const NONE: &str = "-";
/// Characters of a container's id that are shown where it stands for a name.
const SHORT_ID: usize = 12;

/// The cells of a death, as many as there are columns.
pub(crate) fn cells(death: &Death, wide: bool, zone: &TimeZone) -> Vec<String> {
    let format = if wide { "%Y-%m-%d %H:%M:%S" } else { "%m-%d %H:%M:%S" };
    let mut cells = vec![
        death.time.to_zoned(zone.clone()).strftime(format).to_string(),
        cause(death),
        process(&death.victim.comm, death.victim.pid),
        place(death),
        job(death),
        memory(&death.memory),
    ];
    if wide {
        cells.extend([death.node.clone(), killer(death), exit(death), death.id.to_string()]);
    }
    cells
}

fn cause(death: &Death) -> String {
    match death.state {
        State::Dead => death.cause.as_str().to_owned(),
        State::Stuck => format!("{} (stuck)", death.cause.as_str()),
    }
}

fn process(comm: &str, pid: u32) -> String {
    format!("{comm}[{pid}]")
}

/// The best name for where it ran: pod and container, unit, or the end of its cgroup's path.
fn place(death: &Death) -> String {
    place_of(&death.workload, death.workload.cgroup.as_deref())
}

/// The best name for a workload in this cgroup.
pub(crate) fn place_of(workload: &Workload, cgroup: Option<&str>) -> String {
    let id = workload.container_id.as_deref().map(|id| {
        let bare = id.split_once("://").map_or(id, |(_, bare)| bare);
        bare.chars().take(SHORT_ID).collect::<String>()
    });
    let container = workload.container.clone().or(id);
    let tail =
        cgroup.map(|path| path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path));
    match (&workload.namespace, &workload.pod, container, &workload.unit) {
        (namespace, Some(pod), container, _) => {
            let parts = [namespace.as_deref(), Some(pod), container.as_deref()];
            parts.into_iter().flatten().collect::<Vec<_>>().join("/")
        }
        (_, None, Some(container), _) => container,
        (_, None, None, Some(unit)) => unit.clone(),
        (_, None, None, None) => tail.unwrap_or(NONE).to_owned(),
    }
}

fn job(death: &Death) -> String {
    let told = death.job.as_ref().and_then(|job| job.id.as_ref().or(job.name.as_ref()));
    told.or_else(|| death.tags.get("job_id")).map_or_else(|| NONE.to_owned(), Clone::clone)
}

/// The limit that was hit and the use of it; without a limit what the victim itself used.
fn memory(memory: &MemoryStory) -> String {
    // As Kubernetes writes sizes: `32.0Mi`.
    let short = |count: u64| bytes(count).replace([' ', 'B'], "");
    let resident = [memory.anon_bytes, memory.file_bytes, memory.shmem_bytes];
    let resident = resident.into_iter().flatten().reduce(u64::saturating_add);
    match (memory.limit_bytes, memory.usage_bytes.or(resident)) {
        (None, None) => NONE.to_owned(),
        (limit, used) => {
            let or_none = |count: Option<u64>| count.map_or_else(|| NONE.to_owned(), short);
            format!("{}/{}", or_none(limit), or_none(used))
        }
    }
}

fn killer(death: &Death) -> String {
    let killer = &death.killer;
    match (killer.kind, &killer.comm, killer.pid) {
        (KillerKind::Kernel, ..) => "kernel".to_owned(),
        (KillerKind::Itself, ..) => "itself".to_owned(),
        (KillerKind::Process, Some(comm), Some(pid)) => process(comm, pid),
        (KillerKind::Process, Some(comm), None) => comm.clone(),
        (KillerKind::Process, None, Some(pid)) => process("?", pid),
        _ => NONE.to_owned(),
    }
}

fn exit(death: &Death) -> String {
    let victim = &death.victim;
    match (victim.exit_code, victim.signal) {
        (Some(code), _) => code.to_string(),
        (None, Some(_)) => signal(victim),
        (None, None) => NONE.to_owned(),
    }
}
