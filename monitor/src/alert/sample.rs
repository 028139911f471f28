//! Alerts for tests.

use std::collections::BTreeMap;

use super::*;
use crate::death::sample;

const MIB: u64 = 1 << 20;

/// A container of a pod that is near its limit and on its way to it.
pub(crate) fn near_limit() -> Alert {
    let death = sample::in_a_pod();
    let process = |pid, comm: &str, mib: u64| ProcessMemory {
        pid,
        comm: comm.to_owned(),
        rss_bytes: (mib + 4) * MIB,
        anon_bytes: Some(mib * MIB),
        ..ProcessMemory::default()
    };
    let mut largest = process(4242, "worker", 196);
    largest.tags = BTreeMap::from([("job_id".into(), "render-42".into())]);
    let near = NearLimit {
        reason: NearReason::Share,
        unreclaimable_bytes: 224 * MIB,
        usage_bytes: 240 * MIB,
        limit_bytes: 256 * MIB,
        limit_cgroup: death.workload.cgroup.clone().unwrap(),
        share: 0.875,
        growth_bytes_per_minute: Some(f64::from(60 << 20)),
        seconds_left: Some(32.0),
        processes: vec![largest, process(4250, "helper", 12)],
        workload: death.workload,
        job: death.job,
    };
    Alert {
        id: Uuid::from_u128(0x0197_5f3e_8c00_7000_8000_0000_0000_0063),
        schema: SCHEMA,
        node: "node-1".into(),
        time: "2026-01-31T11:59:28Z".parse().unwrap(),
        kind: AlertKind::NearLimit(Box::new(near)),
    }
}

/// The same of another workload.
pub(crate) fn near_limit_of(workload: Workload) -> Alert {
    let mut alert = near_limit();
    if let AlertKind::NearLimit(near) = &mut alert.kind {
        near.workload = workload;
        near.job = None;
    }
    alert
}
