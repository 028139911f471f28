//! The memory story as parts of the page: the victim and the levels above it, what the cgroup's memory was, the minutes before, who else was there, the host.

use std::collections::BTreeMap;

use super::words::{about, bytes, change};
use super::{Item, MEMORY, Page, Plot};
use crate::death::{
    CgroupMemory, Death, History, HostMemory, KindsAt, MemoryStory, Pressure, ProcessMemory,
};

/// Below this fit a straight line says nothing.
const FITS: f64 = 0.5;

pub(super) fn sections(death: &Death, page: &mut Page) {
    let memory = &death.memory;
    at_death(memory, page);
    before(memory, page);
    if let Some(cgroup) = &memory.cgroup {
        by_kind(cgroup, memory, page);
    }
    processes(memory, page);
    if let Some(host) = &memory.host {
        of_host(host, page);
    }
}

fn at_death(memory: &MemoryStory, page: &mut Page) {
    let own = [
        ("anonymous", memory.anon_bytes),
        ("file", memory.file_bytes),
        ("shared", memory.shmem_bytes),
        ("swap", memory.swap_bytes),
        ("page tables", memory.page_tables_bytes),
        ("peak", memory.peak_rss_bytes),
    ];
    if own.iter().all(|(_, amount)| amount.is_none()) && memory.levels.is_empty() {
        return;
    }
    page.section(MEMORY);
    for (name, amount) in own {
        page.maybe(name, amount.map(bytes).as_ref());
    }
    for level in &memory.levels {
        let limit = level
            .limit_bytes
            .map_or_else(|| "no limit".to_owned(), |limit| format!("limit {}", bytes(limit)));
        let cgroup = level.cgroup.as_deref().unwrap_or("a cgroup whose path is not known");
        let swap = level.swap_bytes.filter(|swap| *swap > 0);
        let swap = swap.map_or_else(String::new, |swap| format!(" and {} of swap", bytes(swap)));
        page.line(&format!("{} used{swap}, {limit}: {cgroup}", bytes(level.usage_bytes)));
    }
}

fn before(memory: &MemoryStory, page: &mut Page) {
    let (history, warned) = (memory.history.as_ref(), memory.warned_seconds);
    if history.is_none() && warned.is_none() {
        return;
    }
    page.section("The minutes before");
    if let Some(history) = history {
        if memory.limit_cgroup.as_ref() != Some(&history.cgroup) {
            page.value("of", &history.cgroup);
        }
        of_history(history, page);
    }
    match warned {
        Some(seconds) if seconds > 0.0 => {
            page.value("warned", &format!("{} before, as near its limit", about(seconds)));
        }
        Some(_) => page.value("warned", "no: nothing told of its nearness to the limit before"),
        None => {}
    }
}

fn of_history(history: &History, page: &mut Page) {
    match Plot::of(history) {
        Some(plot) => {
            let summary = plot.summary();
            page.add(Item::Plot(plot));
            page.line(&summary);
        }
        None => page.line("It was looked at too seldom for a picture."),
    }
    if let Some(growth) = history.growth_bytes_per_minute {
        let line = match history.fit {
            Some(fit) if fit >= FITS => format!(" (a straight line, fit {fit:.2} of 1)"),
            Some(fit) => format!(" (on the whole; no straight line, fit {fit:.2} of 1)"),
            None => String::new(),
        };
        page.value("growth", &format!("{} a minute{line}", change(growth)));
    }
    if let (Some(first), Some(last)) = (history.kinds.first(), history.kinds.last())
        && first.ago_seconds > last.ago_seconds
    {
        page.maybe("of which", changes(first, last).as_ref());
    }
    page.maybe("age", history.age_seconds.map(about).as_ref());
}

/// How each kind changed, those that did.
fn changes(first: &KindsAt, last: &KindsAt) -> Option<String> {
    let kinds = [
        ("anonymous", first.anon_bytes, last.anon_bytes),
        ("page cache", first.file_bytes, last.file_bytes),
        ("tmpfs and shared", first.shmem_bytes, last.shmem_bytes),
        ("kernel", first.kernel_bytes, last.kernel_bytes),
        ("swap", first.swap_bytes, last.swap_bytes),
    ];
    let changed =
        kinds.iter().filter(|(_, before, after)| before != after).map(|(name, before, after)| {
            let sign = if after < before { '-' } else { '+' };
            format!("{name} {sign}{}", bytes(before.abs_diff(*after)))
        });
    let changed: Vec<String> = changed.collect();
    let over = about(first.ago_seconds - last.ago_seconds);
    (!changed.is_empty()).then(|| format!("{} within {over}", changed.join(", ")))
}

fn by_kind(cgroup: &CgroupMemory, memory: &MemoryStory, page: &mut Page) {
    page.section("Memory by kind");
    let given_back =
        memory.usage_bytes.zip(cgroup.usage_bytes).is_some_and(|(at, now)| now < at / 2);
    let history = memory.history.as_ref().filter(|history| history.cgroup == cgroup.cgroup);
    let before = history.filter(|_| given_back).and_then(|history| history.kinds.last());
    if let Some(before) = before {
        return just_before(before, cgroup, page);
    }
    if memory.limit_cgroup.as_ref() != Some(&cgroup.cgroup) {
        page.value("of", &cgroup.cgroup);
    }
    let kinds = [
        ("anonymous (heaps, stacks)", cgroup.anon_bytes),
        ("page cache", cgroup.file_bytes),
        ("  inactive", cgroup.inactive_file_bytes),
        ("  to be written", cgroup.dirty_bytes),
        ("tmpfs and shared", cgroup.shmem_bytes),
        ("kernel", cgroup.kernel_bytes),
        ("  slab", cgroup.slab_bytes),
        ("  sockets", cgroup.sock_bytes),
        ("cannot be evicted", cgroup.unevictable_bytes),
        ("in swap", cgroup.swap_bytes),
    ];
    let row = |(name, amount): (&str, Option<u64>)| {
        // Of a part that is nothing nobody wants to know.
        let amount = amount.filter(|amount| *amount > 0 || !name.starts_with(' '))?;
        Some(vec![name.to_owned(), bytes(amount), share(amount, cgroup.usage_bytes)])
    };
    page.table(&["KIND", "SIZE", "OF ALL"], kinds.into_iter().filter_map(row).collect());
    page.maybe("all", cgroup.usage_bytes.map(bytes).as_ref());
    page.maybe("the most", cgroup.peak_bytes.map(bytes).as_ref());
    let told = |amount: Option<u64>, what: &str| amount.map(|n| format!("{} ({what})", bytes(n)));
    let set = told(cgroup.working_set_bytes, "as the kubelet counts it");
    page.maybe("working set", set.as_ref());
    let stays = told(cgroup.unreclaimable_bytes, "the kernel cannot take it back under pressure");
    page.maybe("stays", stays.as_ref());
    page.maybe("events", events(&cgroup.events).as_ref());
    page.maybe("pressure", cgroup.pressure.map(pressure).as_ref());
    if let Some(delay) = cgroup.delay_ms {
        page.line(&format!(
            "Looked at {delay:.1} ms after the kernel's decision: what it gave back by then is missing."
        ));
    }
}

/// By the look the victim had given its memory back: what was seen before says more.
fn just_before(before: &KindsAt, cgroup: &CgroupMemory, page: &mut Page) {
    let kinds = [
        ("anonymous (heaps, stacks)", before.anon_bytes),
        ("page cache", before.file_bytes),
        ("tmpfs and shared", before.shmem_bytes),
        ("kernel", before.kernel_bytes),
        ("in swap", before.swap_bytes),
    ];
    let in_memory = kinds.iter().filter(|(name, _)| *name != "in swap");
    let all = in_memory.fold(0, |sum: u64, (_, amount)| sum.saturating_add(*amount));
    let row = |(name, amount): (&str, u64)| {
        vec![name.to_owned(), bytes(amount), share(amount, Some(all))]
    };
    page.table(&["KIND", "SIZE", "OF ALL"], kinds.into_iter().map(row).collect());
    page.maybe("the most", cgroup.peak_bytes.map(bytes).as_ref());
    page.maybe("events", events(&cgroup.events).as_ref());
    page.maybe("pressure", cgroup.pressure.map(pressure).as_ref());
    let left =
        cgroup.usage_bytes.map_or_else(String::new, |left| format!(": {} were left", bytes(left)));
    let delay = cgroup.delay_ms.map_or_else(String::new, |ms| format!(", {ms:.1} ms later,"));
    page.line(&format!(
        "As seen {:.1} s before the kernel's decision. By the next look{delay} the victim had given its memory back{left}.",
        before.ago_seconds
    ));
}

fn share(amount: u64, all: Option<u64>) -> String {
    let percent = all.and_then(|all| (u128::from(amount) * 100).checked_div(u128::from(all)));
    percent.map_or_else(String::new, |percent| format!("{percent} %"))
}

fn events(events: &BTreeMap<String, u64>) -> Option<String> {
    let told: Vec<String> =
        events.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} {n}")).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

fn pressure(pressure: Pressure) -> String {
    let full =
        pressure.full_avg10.map_or_else(String::new, |full| format!(", all of them {full:.1} %"));
    format!(
        "some of its tasks waited for memory {:.1} % of the last 10 s{full}",
        pressure.some_avg10
    )
}

fn processes(memory: &MemoryStory, page: &mut Page) {
    if memory.processes.is_empty() {
        return;
    }
    page.section("Processes");
    let known = |amount: Option<u64>| amount.map_or_else(String::new, bytes);
    let row = |process: &ProcessMemory| {
        let tags: Vec<String> =
            process.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            if process.victim { "died" } else { "" }.to_owned(),
            process.pid.to_string(),
            process.comm.clone(),
            bytes(process.rss_bytes),
            known(process.anon_bytes),
            known(process.shmem_bytes),
            known(process.swap_bytes),
            process.oom_score_adj.map_or_else(String::new, |adj| adj.to_string()),
            tags.join(", "),
        ]
    };
    let rows = memory.processes.iter().map(row).collect();
    page.table(&["", "PID", "NAME", "RESIDENT", "ANON", "SHARED", "SWAP", "ADJ", "TAGS"], rows);
    let shown = u32::try_from(memory.processes.len()).unwrap_or(u32::MAX);
    if let Some(count) = memory.process_count.filter(|count| *count > shown) {
        page.line(&format!("These are the largest of {count}."));
    }
}

fn of_host(host: &HostMemory, page: &mut Page) {
    page.section("Host");
    page.value(
        "available",
        &format!("{} of {}", bytes(host.available_bytes), bytes(host.total_bytes)),
    );
    let swap = match host.swap_total_bytes {
        0 => "none".to_owned(),
        total => format!("{} free of {}", bytes(host.swap_free_bytes), bytes(total)),
    };
    page.value("swap", &swap);
    page.maybe("OOM kills", host.oom_kills.map(|kills| format!("{kills} since boot")).as_ref());
    let reclaimed = host.direct_reclaim_pages;
    let reclaimed =
        reclaimed.map(|pages| format!("{pages} pages since boot by those who asked for memory"));
    page.maybe("reclaimed", reclaimed.as_ref());
    page.maybe("pressure", host.pressure.map(pressure).as_ref());
}
