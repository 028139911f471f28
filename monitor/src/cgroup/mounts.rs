//! Which cgroup hierarchies this host has and where they are mounted, from `/proc/self/mountinfo` and
//! `/proc/cgroups`. [`Mounts::parse`] is pure; [`Mounts::detect`] reads the two files and parses them.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Inode of the true root of a hierarchy (fs/kernfs: the first id handed out).
const ROOT_INODE: u64 = 1;

/// The hierarchies that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounts {
    /// The hierarchy of the memory controller.
    pub memory: Hierarchy,
    /// The cgroup2 hierarchy, if mounted. On [`Mode::V2`] the same as `memory`.
    pub unified: Option<Hierarchy>,
    /// How the host is set up.
    pub mode: Mode,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its number in `/proc/cgroups`; 0 is v2.
    pub id: u32,
    /// Its version.
    pub version: Version,
    /// Where it is mounted, as this process sees it.
    pub root: PathBuf,
}

impl Hierarchy {
    /// Whether the mount shows the whole hierarchy. If not, this process lives in a cgroup namespace and sees its own
    /// subtree only: nearly every cgroup of the host is then without a name.
    ///
    /// # Errors
    /// If the mount point cannot be looked at.
    pub fn is_whole(&self) -> io::Result<bool> {
        Ok(self.root.metadata()?.ino() == ROOT_INODE)
    }
}

/// Version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One of many, with its own controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// How a host's cgroups are set up, as far as memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Memory on v1; no cgroup2 is mounted.
    V1,
    /// Memory on v2.
    V2,
    /// Memory on v1; cgroup2 is mounted beside it, without memory.
    Hybrid,
}

/// Why no memory controller was found.
#[derive(Debug, Error)]
pub enum MountsError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Switched off at boot.
    #[error(
        "the memory controller is switched off (/proc/cgroups); boot without cgroup_disable=memory"
    )]
    Disabled,
    /// On v1, and that hierarchy is not mounted where we look.
    #[error("the memory controller is on v1 hierarchy {hierarchy}, which is not mounted{}", below(within.as_deref()))]
    V1NotMounted {
        /// Its number.
        hierarchy: u32,
        /// Where it was looked for.
        within: Option<PathBuf>,
    },
    /// Neither a v1 memory hierarchy nor cgroup2 is mounted where we look.
    #[error("no cgroup file system with the memory controller is mounted{}", below(within.as_deref()))]
    NotMounted {
        /// Where it was looked for.
        within: Option<PathBuf>,
    },
    /// A v1 memory hierarchy is mounted, but nothing tells its number.
    #[error("{} is a v1 memory hierarchy, but /proc/cgroups does not tell its number", root.display())]
    NoNumber {
        /// Where it is mounted.
        root: PathBuf,
    },
}

fn below(within: Option<&Path>) -> String {
    within.map_or_else(String::new, |path| format!(" at or below {}", path.display()))
}

impl Mounts {
    /// Reads `self/mountinfo` and `cgroups` below `proc`. `within`, if given, is where the host's cgroup file systems are
    /// mounted (in a container: not `/sys/fs/cgroup`); mounts elsewhere are ignored then.
    ///
    /// # Errors
    /// If a file cannot be read, or no memory controller is there.
    pub fn detect(proc: &Path, within: Option<&Path>) -> Result<Self, MountsError> {
        let path = proc.join("self/mountinfo");
        let mountinfo =
            std::fs::read(&path).map_err(|source| MountsError::Read { path, source })?;
        let path = proc.join("cgroups");
        let cgroups = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            // A kernel without any v1 controller has no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(MountsError::Read { path, source }),
        };
        // mountinfo has no symbolic links in it.
        let within = within.map(|path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf()));
        Self::parse(&mountinfo, cgroups.as_deref(), within.as_deref())
    }

    /// The same from the text of the two files; `cgroups` is `None` where the kernel has no `/proc/cgroups`.
    ///
    /// # Errors
    /// If no memory controller is there.
    pub fn parse(
        mountinfo: &[u8],
        cgroups: Option<&str>,
        within: Option<&Path>,
    ) -> Result<Self, MountsError> {
        let mounts: Vec<Mount> = mountinfo
            .split(|byte| *byte == b'\n')
            .filter_map(parse_mount)
            .filter(|mount| within.is_none_or(|within| mount.point.starts_with(within)))
            .collect();
        let unified = best(&mounts, |mount| mount.version == Version::V2).map(|root| Hierarchy {
            id: 0,
            version: Version::V2,
            root,
        });
        let v1 = best(&mounts, |mount| mount.version == Version::V1 && mount.memory);
        let within = || within.map(Path::to_path_buf);

        let memory = match cgroups.and_then(memory_line) {
            Some(Controller { enabled: false, .. }) => return Err(MountsError::Disabled),
            Some(Controller { hierarchy, .. }) if hierarchy != 0 => {
                let root =
                    v1.ok_or_else(|| MountsError::V1NotMounted { hierarchy, within: within() })?;
                Hierarchy { id: hierarchy, version: Version::V1, root }
            }
            // Hierarchy 0, or no line since the kernel has no v1 memory controller at all.
            line => match (v1, &unified) {
                (Some(root), _) if line.is_none() => return Err(MountsError::NoNumber { root }),
                (_, Some(unified)) => unified.clone(),
                (_, None) => return Err(MountsError::NotMounted { within: within() }),
            },
        };
        let mode = match (memory.version, &unified) {
            (Version::V2, _) => Mode::V2,
            (Version::V1, None) => Mode::V1,
            (Version::V1, Some(_)) => Mode::Hybrid,
        };
        Ok(Self { memory, unified, mode })
    }
}

/// The `memory` line of `/proc/cgroups`: `name hierarchy num_cgroups enabled`.
struct Controller {
    hierarchy: u32,
    enabled: bool,
}

fn memory_line(cgroups: &str) -> Option<Controller> {
    cgroups.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        (fields.next()? == "memory").then_some(())?;
        let hierarchy = fields.next()?.parse().ok()?;
        Some(Controller { hierarchy, enabled: fields.nth(1) != Some("0") })
    })
}

/// A cgroup file system in mountinfo.
struct Mount {
    version: Version,
    /// Which part of the hierarchy it shows, relative to our cgroup namespace.
    root: Vec<u8>,
    point: PathBuf,
    memory: bool,
}

/// `id parent major:minor root point options optional… - type source super-options` (proc(5)); `None` for other types.
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = fields.nth(3)?.to_vec();
    let point = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    fields.find(|field| *field == b"-")?;
    let version = match fields.next()? {
        b"cgroup" => Version::V1,
        b"cgroup2" => Version::V2,
        _ => return None,
    };
    let memory = fields.nth(1)?.split(|byte| *byte == b',').any(|option| option == b"memory");
    Some(Mount { version, root, point, memory })
}

/// The mount that shows most of the hierarchy: the one that climbs furthest out of our cgroup namespace (`/../..`), else
/// the namespace's own root, else a part of it. Of equals the shortest mount point; of two on one point the later one, which hides the other.
fn best(mounts: &[Mount], fits: impl Fn(&Mount) -> bool) -> Option<PathBuf> {
    let rank = |mount: &&Mount| {
        let parts = || mount.root.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        let up = parts().filter(|part| *part == b"..").count();
        (up, std::cmp::Reverse((parts().count() - up, mount.point.as_os_str().len())))
    };
    mounts.iter().filter(|mount| fits(mount)).max_by_key(rank).map(|mount| mount.point.clone())
}

/// Undoes the kernel's `\ooo` for space, tab, newline, `#` and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V1_LINE: &str =
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\nmemory\t4\t11\t1\n";
    const V2_LINE: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t11\t1\n";
    const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:4 - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 master:2 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const V2: &[u8] = b"25 20 0:23 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn v2(root: &str) -> Hierarchy {
        Hierarchy { id: 0, version: Version::V2, root: root.into() }
    }

    fn v1(id: u32, root: &str) -> Hierarchy {
        Hierarchy { id, version: Version::V1, root: root.into() }
    }

    #[test]
    fn knows_the_three_modes() {
        let hybrid = Mounts::parse(HYBRID, Some(V1_LINE), None).unwrap();
        assert_eq!(
            hybrid,
            Mounts {
                memory: v1(4, "/sys/fs/cgroup/memory"),
                unified: Some(v2("/sys/fs/cgroup/unified")),
                mode: Mode::Hybrid
            }
        );
        let without_unified: Vec<u8> =
            HYBRID.split_inclusive(|b| *b == b'\n').take(4).flatten().copied().collect();
        let pure_v1 = Mounts::parse(&without_unified, Some(V1_LINE), None).unwrap();
        assert_eq!(
            pure_v1,
            Mounts { memory: v1(4, "/sys/fs/cgroup/memory"), unified: None, mode: Mode::V1 }
        );
        for cgroups in [
            Some(V2_LINE),
            Some("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\n"),
            None,
        ] {
            let pure_v2 = Mounts::parse(V2, cgroups, None).unwrap();
            let root = v2("/sys/fs/cgroup");
            assert_eq!(
                pure_v2,
                Mounts { memory: root.clone(), unified: Some(root), mode: Mode::V2 },
                "{cgroups:?}"
            );
        }
    }

    #[test]
    fn co_mounted_controllers_and_escapes() {
        let text = br"35 31 0:32 / /mnt/a\040b\134c rw - cgroup cgroup rw,cpu,memory";
        let mounts = Mounts::parse(text, Some(V1_LINE), None).unwrap();
        assert_eq!(mounts.memory.root, Path::new(r"/mnt/a b\c"));
    }

    #[test]
    fn prefers_the_hosts_mount_over_the_namespaces() {
        let text = b"1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
2 0 0:1 /../../.. /host/sys/fs/cgroup ro - cgroup2 cgroup2 rw
3 0 0:1 /../.. /part ro - cgroup2 cgroup2 rw
4 0 0:1 /child /x ro - cgroup2 cgroup2 rw
";
        assert_eq!(
            Mounts::parse(text, None, None).unwrap().memory.root,
            Path::new("/host/sys/fs/cgroup")
        );
        let own = Mounts::parse(text, None, Some(Path::new("/sys/fs/cgroup/"))).unwrap();
        assert_eq!(own.memory.root, Path::new("/sys/fs/cgroup"));
        // A name that only starts alike is not below.
        let error = Mounts::parse(text, None, Some(Path::new("/host/sys/fs/cg"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no cgroup file system with the memory controller is mounted at or below /host/sys/fs/cg"
        );
    }

    #[test]
    fn says_what_is_wrong() {
        let text =
            |cgroups, mountinfo| Mounts::parse(mountinfo, cgroups, None).unwrap_err().to_string();
        assert_eq!(
            text(Some(V2_LINE), b""),
            "no cgroup file system with the memory controller is mounted"
        );
        assert_eq!(
            text(Some(V1_LINE), V2),
            "the memory controller is on v1 hierarchy 4, which is not mounted"
        );
        assert!(text(Some("memory 0 1 0\n"), V2).contains("cgroup_disable=memory"));
        assert!(text(None, HYBRID).starts_with("/sys/fs/cgroup/memory is a v1 memory hierarchy"));
    }

    #[test]
    fn reads_below_a_proc_root() {
        let proc = tempfile::tempdir().unwrap();
        let error = Mounts::detect(proc.path(), None).unwrap_err();
        assert!(error.to_string().contains("self/mountinfo"), "{error}");
        std::fs::create_dir(proc.path().join("self")).unwrap();
        std::fs::write(proc.path().join("self/mountinfo"), V2).unwrap();
        assert_eq!(Mounts::detect(proc.path(), None).unwrap().mode, Mode::V2);
        std::fs::write(proc.path().join("self/mountinfo"), HYBRID).unwrap();
        std::fs::write(proc.path().join("cgroups"), V1_LINE).unwrap();
        assert_eq!(Mounts::detect(proc.path(), None).unwrap().memory.id, 4);
    }

    #[test]
    fn only_a_true_root_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!v2(dir.path().to_str().unwrap()).is_whole().unwrap());
        assert!(v2(dir.path().join("no").to_str().unwrap()).is_whole().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mountinfo: Vec<u8>, cgroups: Option<String>) {
            let _ = Mounts::parse(&mountinfo, cgroups.as_deref(), None);
        }

        #[test]
        fn escaping_is_undone(path in proptest::collection::vec(any::<u8>(), 0..40)) {
            let escaped: Vec<u8> = path.iter().flat_map(|byte| match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
                other => vec![*other],
            }).collect();
            prop_assert_eq!(unescape(&escaped), path);
        }
    }
}
