//! Lines of real kernels, and lines that were made to mislead.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::text::from_bytes;

/// One line a case. Those of `corpus.txt` are from real kernels; the others were made to mislead.
#[test]
fn the_corpus_reads_as_it_always_did() {
    let mut said = String::new();
    for record in include_str!("corpus.txt").lines().filter(|line| !line.starts_with('#')) {
        let _ = writeln!(said, "{record}");
        match entry(record.as_bytes()) {
            None => said.push_str("    no record\n"),
            Some(entry) => {
                let by = if entry.by_kernel { "kernel" } else { "process" };
                let shown =
                    line(&entry.text).map_or_else(|| "nothing".to_owned(), |line| show(&line));
                let _ = writeln!(said, "    {} {} {by}: {shown}", entry.sequence, entry.time_us);
            }
        }
    }
    crate::golden::check_named("kmsg.txt", &said);
}

fn show(line: &Line) -> String {
    let path = |path: &Option<Vec<u8>>| path.as_deref().map_or_else(|| "?".to_owned(), from_bytes);
    match line {
        Line::Decision(d) => format!(
            "decision {:?} limit {} cgroup {} pid {} uid {}",
            d.constraint,
            path(&d.limit),
            path(&d.cgroup),
            d.pid,
            d.uid
        ),
        Line::Killed(k) => format!(
            "killed {:?} memcg {} tid {} anon {} file {} shmem {} uid {:?} pgtables {:?} adj {:?}",
            from_bytes(&k.comm),
            k.memcg,
            k.tid,
            k.anon,
            k.file,
            k.shmem,
            k.uid,
            k.page_tables,
            k.oom_score_adj
        ),
        Line::Group { path } => format!("group {}", from_bytes(path)),
        other => format!("{other:?}"),
    }
}

/// Whatever is not a letter or digit, and what the lines are made of.
fn hostile(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[a-z]{1,3}".prop_map(String::into_bytes),
        proptest::sample::select(vec![
            ")",
            " (",
            ") total-vm:1kB",
            ",task=",
            ",pid=1",
            ",uid=0",
            ",oom_memcg=",
            ",task_memcg=",
            ",mems_allowed=0",
            ",global_oom",
            "Killed process 1",
            "\n",
            ";",
            "\\x41",
            "\\",
            " are going to be",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        any::<u8>().prop_filter("no zero", |byte| *byte != 0).prop_map(|byte| vec![byte]),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(move |pieces| {
        let mut bytes = pieces.concat();
        bytes.truncate(max);
        bytes
    })
}

/// A path of cgroups: a name has no `/` and no newline.
fn path() -> impl Strategy<Value = Vec<u8>> {
    let name = hostile(30).prop_map(|name| {
        let name: Vec<u8> = name.into_iter().filter(|byte| !b"/\n".contains(byte)).collect();
        if name.is_empty() { b"x".to_vec() } else { name }
    });
    proptest::collection::vec(name, 1..4)
        .prop_map(|names| names.iter().flat_map(|name| [b"/", name.as_slice()].concat()).collect())
}

/// As `/dev/kmsg` writes it (kernel/printk/printk.c, `msg_add_ext_text`).
fn escape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in text {
        match byte {
            b' '..=b'~' if *byte != b'\\' => out.push(*byte),
            byte => out.extend(format!("\\x{byte:02x}").into_bytes()),
        }
    }
    out
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, text in hostile(200)) {
        let _ = entry(&bytes);
        let _ = line(&bytes);
        for start in ["oom-kill:constraint=CONSTRAINT_MEMCG,", "Out of memory: Killed process 1 (", "Tasks in ", "memory: usage "] {
            let _ = line(&[start.as_bytes(), &text].concat());
        }
    }

    #[test]
    fn escapes_are_undone(text: Vec<u8>, sequence: u64, time_us: u64) {
        let mut record = format!("6,{sequence},{time_us},-;").into_bytes();
        record.extend(escape(&text));
        record.extend(b"\n SUBSYSTEM=x\n");
        prop_assert_eq!(entry(&record), Some(Entry { sequence, time_us, by_kernel: true, text }));
    }

    /// Whatever its name: the numbers are the kernel's.
    #[test]
    fn a_name_passes_for_nothing_else(comm in hostile(15), tid: u32, uid: u32, anon in 0..1u64 << 40) {
        let mut text = format!("Out of memory: Killed process {tid} (").into_bytes();
        text.extend(&comm);
        text.extend(format!(") total-vm:5kB, anon-rss:{anon}kB, file-rss:1kB, shmem-rss:2kB, UID:{uid} pgtables:3kB oom_score_adj:-7").bytes());
        let expected = Killed {
            memcg: false, tid, comm, anon: anon * 1024, file: 1024, shmem: 2048,
            uid: Some(uid), page_tables: Some(3072), oom_score_adj: Some(-7),
        };
        prop_assert_eq!(line(&text), Some(Line::Killed(expected)));
    }

    /// Whatever the names: the paths are the true ones, or not told.
    #[test]
    fn a_path_is_true_or_not_told(
        cpuset in hostile(30), limit in path(), below in proptest::option::of(path()),
        comm in hostile(15), pid: u32, uid: u32, global: bool,
    ) {
        let cpuset: Vec<u8> = cpuset.into_iter().filter(|byte| !b"/\n".contains(byte)).collect();
        let cgroup = [limit.as_slice(), below.as_deref().unwrap_or_default()].concat();
        let mut text = b"oom-kill:constraint=".to_vec();
        text.extend(if global { b"CONSTRAINT_NONE".as_slice() } else { b"CONSTRAINT_MEMCG" });
        text.extend(b",nodemask=(null),cpuset=");
        text.extend(&cpuset);
        text.extend(b",mems_allowed=0-1,3");
        if global {
            text.extend(b",global_oom");
        } else {
            text.extend(b",oom_memcg=");
            text.extend(&limit);
        }
        text.extend(b",task_memcg=");
        text.extend(&cgroup);
        text.extend(b",task=");
        text.extend(&comm);
        text.extend(format!(",pid={pid},uid={uid}").bytes());
        let Some(Line::Decision(said)) = line(&text) else { panic!("not read") };
        prop_assert_eq!((said.pid, said.uid), (pid, uid));
        if let Some(said_cgroup) = said.cgroup {
            prop_assert_eq!(said_cgroup, cgroup);
            prop_assert_eq!(said.limit, (!global).then_some(limit));
        }
    }
}
