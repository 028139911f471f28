//! Marks that userspace OOM killers leave on the cgroups that they kill: extended attributes of the cgroup's directory.

use std::{collections::BTreeMap, path::PathBuf};

/// Their names: of systemd-oomd (systemd, src/oom/oomd-util.c), and of oomd (facebookincubator/oomd, docs/).
const NAMES: [&str; 5] = [
    "user.oomd_ooms",
    "user.oomd_kill",
    "trusted.oomd_ooms",
    "trusted.oomd_kill",
    "trusted.oomd_kill_uuid",
];
/// Longest value that is kept, bytes: they are counts and a UUID.
const LONGEST: usize = 64;
/// Cgroups that are looked at, from the victim's upwards: a killer marks the one that it chose, which may be above.
const LEVELS: usize = 8;

/// Reads marks below the root of a hierarchy.
#[derive(Debug, Clone)]
pub struct Marks {
    root: PathBuf,
}

impl Marks {
    /// `root`: where the v2 hierarchy is mounted.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The marks on the nearest cgroup that has any, from `path` (from the root of the hierarchy) upwards. Empty if there are none or they
    /// cannot be read: the cgroup may be gone, and `trusted.` is for CAP_SYS_ADMIN.
    #[must_use]
    pub fn read(&self, path: &str) -> BTreeMap<String, String> {
        let mut level = Some(path.trim_matches('/'));
        for _ in 0..LEVELS {
            let Some(path) = level.filter(|path| !path.is_empty()) else { break };
            let marks = self.of(path);
            if !marks.is_empty() {
                return marks;
            }
            level = path.rsplit_once('/').map(|(above, _)| above);
        }
        BTreeMap::new()
    }

    fn of(&self, path: &str) -> BTreeMap<String, String> {
        let directory = self.root.join(path);
        let read = |name: &str| {
            let mut value = [0; LONGEST];
            let len = rustix::fs::lgetxattr(&directory, name, &mut value).ok()?;
            let text = std::str::from_utf8(value.get(..len)?).ok()?;
            Some((name.to_owned(), crate::text::one_line(text)))
        };
        NAMES.iter().filter_map(|name| read(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_marks_count() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("slice/unit");
        std::fs::create_dir_all(&inner).unwrap();
        let marks = Marks::new(root.path().to_owned());
        assert_eq!(marks.read("/slice/unit"), BTreeMap::new());
        let set = |path: &std::path::Path, value: &str| {
            rustix::fs::setxattr(
                path,
                "user.oomd_kill",
                value.as_bytes(),
                rustix::fs::XattrFlags::empty(),
            )
        };
        if set(&root.path().join("slice"), "3").is_err() {
            eprintln!("SKIPPED: the_nearest_marks_count: this file system has no user attributes");
            return;
        }
        let of = |value: &str| BTreeMap::from([("user.oomd_kill".to_owned(), value.to_owned())]);
        assert_eq!(marks.read("/slice/unit"), of("3"));
        set(&inner, "1").unwrap();
        assert_eq!(marks.read("/slice/unit"), of("1"));
        set(&inner, &"x".repeat(LONGEST + 1)).unwrap();
        assert_eq!(marks.read("/slice/unit"), of("3"));
        assert_eq!(marks.read("/gone"), BTreeMap::new());
    }
}
