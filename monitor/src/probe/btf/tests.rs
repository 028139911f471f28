//! Tests of the reader of BTF: against another one, on the kernel that runs, and on any bytes.

use proptest::prelude::*;

use super::*;

#[test]
fn says_what_is_wrong() {
    assert_eq!(Btf::parse(&[]).unwrap_err(), BtfError::Truncated(0, "header"));
    assert_eq!(Btf::parse(&[0; 24]).unwrap_err(), BtfError::Magic(0));
    let mut header = MAGIC.to_ne_bytes().to_vec();
    header.resize(24, 0);
    header[4] = 24;
    header[12] = 200;
    assert_eq!(Btf::parse(&header).unwrap_err(), BtfError::Truncated(24, "type section"));
}

/// The running kernel, as another reader sees it.
#[test]
fn agrees_with_another_reader_on_this_kernel() {
    let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
        eprintln!("SKIPPED: this kernel has no BTF");
        return;
    };
    struct Bytes(Vec<u8>);
    impl btfparse::Readable for Bytes {
        fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
            let start = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
            Ok(())
        }
    }
    let ours = Btf::parse(&bytes).unwrap();
    let theirs = btfparse::TypeInformation::new(&Bytes(bytes.clone())).unwrap();
    let mut compared = 0;
    for path in killwatch_ebpf::layout::Layout::FIELDS.iter().flat_map(|field| field.paths) {
        let (name, member) = path.split_once('.').unwrap();
        let expected = theirs
            .id_of(name)
            .and_then(|id| theirs.offset_of(id, member).ok())
            .and_then(|(_, offset)| match offset {
                btfparse::Offset::ByteOffset(bytes) => Some(bytes),
                btfparse::Offset::BitOffsetAndSize(..) => None,
            });
        assert_eq!(ours.member(path).map(|member| member.offset), expected, "{path}");
        compared += usize::from(expected.is_some());
    }
    assert!(compared > 40, "{compared} fields compared");
}

/// Each program of ours attaches by the number that the kernel knows its place by.
#[test]
fn what_is_left_keeps_its_number() {
    let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
        eprintln!("SKIPPED: this kernel has no BTF");
        return;
    };
    let whole = Btf::parse(&bytes).unwrap();
    let names = ["btf_trace_mark_victim", "oom_kill_process", "btf_trace_cgroup_mkdir"];
    let few = whole.only(&names);
    let few = Btf::parse(&few).unwrap();
    for name in [names[0], names[2]] {
        let name = name.as_bytes();
        assert!(few.typedefs.contains_key(name));
        assert_eq!(few.typedefs.get(name), whole.typedefs.get(name));
    }
    assert_eq!((few.typedefs.len(), few.structs.len(), few.enums.len()), (2, 0, 0));
    // Nothing else has a name: the functions are found by it too.
    assert_eq!(few.strings.split(|byte| *byte == 0).filter(|name| !name.is_empty()).count(), 3);
    assert!(few.types.len() <= whole.types.len());
}

proptest! {
    /// Any damage to real-looking data is an error or a miss, never a panic.
    #[test]
    fn survives_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), sections in any::<[u8; 4]>()) {
        if bytes.len() >= 24 {
            bytes[..8].copy_from_slice(&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0]);
            for (place, value) in sections.iter().enumerate() {
                bytes[8 + 4 * place..12 + 4 * place].copy_from_slice(&u32::from(*value).to_ne_bytes());
            }
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            for id in 0..64 {
                let _ = btf.size(id);
                let _ = btf.element(id);
                let _ = btf.member_of(id, b"a", 0);
            }
            let _ = btf.member("a.b");
            let _ = btf.tracepoint("a");
            let _ = btf.only(&["a"]);
        }
    }
}
