//! The running kernel's struct offsets, and what its tracepoints pass: the configuration of the kernel side.

use killwatch_ebpf::layout::{ABSENT, Config, Field, Layout};
use thiserror::Error;

use super::btf::Btf;

/// Why the kernel side cannot run on this kernel.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// A field without which no death can be told.
    #[error("this kernel's BTF has no {}", .0.paths.join(" or "))]
    Field(&'static Field),
    /// A type whose size is needed.
    #[error("this kernel's BTF has no size of struct {0}")]
    Size(&'static str),
    /// No memory controller.
    #[error("this kernel is built without the memory controller (CONFIG_MEMCG)")]
    NoMemoryController,
    /// A tracepoint without which no death can be told.
    #[error("this kernel has no tracepoint {0}")]
    Tracepoint(&'static str),
}

/// What the daemon chooses; the rest of [`Config`] is the kernel's.
#[derive(Debug, Clone, Copy)]
pub struct Choices {
    /// Number of the hierarchy with the memory controller; 0 is v2.
    pub memory_hierarchy: u32,
    /// Bytes waiting on the ring above which victims' texts are left out.
    pub texts_high_water: u32,
    /// Whether another task may run while a program does.
    pub quiet: bool,
}

/// Reads the configuration of the kernel side from the running kernel's BTF.
///
/// # Errors
/// If the kernel lacks something that the main job needs. What is optional and absent is marked [`ABSENT`].
pub fn resolve(btf: &Btf<'_>, choices: Choices) -> Result<Config, LayoutError> {
    let layout =
        Layout::try_resolve(|field| match field.paths.iter().find_map(|path| btf.member(path)) {
            Some(member) => Ok(member.offset),
            None if field.required => Err(LayoutError::Field(field)),
            None => Ok(ABSENT),
        })?;
    let size = |name| btf.struct_size(name).ok_or(LayoutError::Size(name));
    let (rss_stat_stride, rss_stat_count) = rss_stat(btf);
    let mark = btf.tracepoint("mark_victim").ok_or(LayoutError::Tracepoint("oom:mark_victim"))?;
    let exit = btf
        .tracepoint("sched_process_exit")
        .ok_or(LayoutError::Tracepoint("sched:sched_process_exit"))?;
    Ok(Config {
        layout,
        rss_stat_stride,
        rss_stat_count,
        sigaction_size: size("k_sigaction")?,
        upid_size: size("upid").unwrap_or(0),
        memory_cgrp_id: btf
            .enumerator("cgroup_subsys_id", "memory_cgrp_id")
            .ok_or(LayoutError::NoMemoryController)?,
        memory_hierarchy: choices.memory_hierarchy,
        mark_has_task: u32::from(mark.first() == Some(&true)),
        exit_has_group_dead: u32::from(exit.len() > 1),
        texts_high_water: choices.texts_high_water,
        quiet: u32::from(choices.quiet),
    })
}

/// How `mm_struct.rss_stat` is laid out: an array of `percpu_counter` from 6.2, before that a struct around an array of longs.
fn rss_stat(btf: &Btf<'_>) -> (u32, u32) {
    const LONG: u32 = 8;
    let counter = btf.member("mm_struct.rss_stat").and_then(|member| btf.element(member.type_id));
    match (counter.and_then(|element| btf.size(element)), btf.member("percpu_counter.count")) {
        (Some(size), Some(count)) if size > LONG => (size, count.offset),
        _ => (LONG, 0),
    }
}

/// The names of the optional fields that this kernel lacks.
#[must_use]
pub fn absent(config: &Config) -> Vec<&'static str> {
    let mut names = Vec::new();
    let mut offsets = zerocopy::IntoBytes::as_bytes(&config.layout).chunks_exact(4);
    for field in Layout::FIELDS {
        if offsets.next().is_some_and(|bytes| bytes == ABSENT.to_ne_bytes()) {
            names.push(field.name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_kernel() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("SKIPPED: this kernel has no BTF");
            return;
        };
        let btf = Btf::parse(&bytes).unwrap();
        let config =
            resolve(&btf, Choices { memory_hierarchy: 7, texts_high_water: 9, quiet: true })
                .unwrap();
        assert_eq!((config.memory_hierarchy, config.texts_high_water, config.quiet), (7, 9, 1));
        assert!(config.sigaction_size >= 24, "{config:?}");
        assert!(config.rss_stat_stride >= 8, "{config:?}");
        assert!(!absent(&config).contains(&"task_exit_code"));
    }

    #[test]
    fn a_kernel_without_a_required_field_is_refused() {
        // An empty type section.
        let mut bytes = vec![0; 25];
        bytes[..2].copy_from_slice(&0xeb9f_u16.to_ne_bytes());
        bytes[4] = 24;
        bytes[20] = 1;
        let btf = Btf::parse(&bytes).unwrap();
        let error =
            resolve(&btf, Choices { memory_hierarchy: 0, texts_high_water: 0, quiet: false })
                .unwrap_err();
        assert_eq!(error.to_string(), "this kernel's BTF has no task_struct.exit_code");
    }
}
