//! The kernels that the end-to-end tests run under. To add one, add an entry.

/// A series of kernels and where Debian keeps it.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What `--kernel` takes.
    pub(crate) series: &'static str,
    /// What `oom:mark_victim` hands over there; a series may have changed that in mid-life.
    pub(crate) mark: Mark,
    /// Where to look, in this order. All but the first are substitutes, and are said to be.
    pub(crate) sources: &'static [Source],
}

/// Prototype of the tracepoint `oom:mark_victim`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A thread id and nothing else.
    PidOnly,
    /// The task, and what the kernel log says of it.
    Extended,
}

/// A place that may hold packages of a kernel.
#[derive(Debug)]
pub(crate) struct Source {
    /// Suites, which are looked through together.
    pub(crate) suites: &'static [&'static str],
    /// How the package's name begins. What stands between this and [`SUFFIX`] is the revision, and has no hyphen.
    pub(crate) prefix: &'static str,
}

/// Architecture of all packages.
pub(crate) const ARCH: &str = "amd64";

/// How the packages' names end: the flavour with the drivers of virtual machines only.
pub(crate) const SUFFIX: &str = "-cloud-amd64";

const fn from(suites: &'static [&'static str], prefix: &'static str) -> Source {
    Source { suites, prefix }
}

/// All of them, from old to new.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        series: "5.10-old",
        mark: Mark::PidOnly,
        sources: &[
            from(&["bullseye"], "linux-image-5.10.0-"),
            from(&["bullseye-security"], "linux-image-5.10.0-"),
        ],
    },
    Kernel {
        series: "5.10",
        mark: Mark::Extended,
        sources: &[
            from(&["bullseye-security"], "linux-image-5.10.0-"),
            from(&["bullseye"], "linux-image-5.10.0-"),
        ],
    },
    Kernel {
        series: "6.1",
        mark: Mark::Extended,
        sources: &[from(&["bookworm", "bookworm-security"], "linux-image-6.1.0-")],
    },
    Kernel {
        series: "6.12",
        mark: Mark::Extended,
        sources: &[
            from(&["trixie", "trixie-security"], "linux-image-6.12."),
            from(&["bookworm-security", "bookworm-backports"], "linux-image-6.12."),
        ],
    },
    Kernel {
        series: "6.18",
        mark: Mark::Extended,
        sources: &[
            from(&["trixie-backports"], "linux-image-6.18."),
            from(&["trixie-backports"], "linux-image-6.17."),
            from(&["trixie-backports"], "linux-image-6.16."),
        ],
    },
    Kernel {
        series: "7",
        mark: Mark::Extended,
        sources: &[
            from(&["trixie-backports"], "linux-binary-7."),
            from(&["sid"], "linux-binary-7."),
            from(&["trixie-backports", "sid"], "linux-image-7."),
        ],
    },
];

/// The one that is booted if none is asked for.
pub(crate) const DEFAULT: &str = "6.1";

impl Kernel {
    /// The kernel of that series.
    pub(crate) fn find(series: &str) -> Option<&'static Self> {
        KERNELS.iter().find(|kernel| kernel.series == series)
    }
}

impl Source {
    /// The newest of these packages that this source means.
    pub(crate) fn newest<'a>(&self, packages: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        packages.filter_map(|name| Some((self.revision(name)?, name))).max().map(|(_, name)| name)
    }

    /// The numbers of a package's revision, `None` if it is another's.
    fn revision(&self, package: &str) -> Option<Vec<u64>> {
        let middle = package.strip_prefix(self.prefix)?.strip_suffix(SUFFIX)?;
        if middle.contains('-') {
            return None;
        }
        let numbers =
            middle.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
        let numbers: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>().ok()?;
        (!numbers.is_empty()).then_some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(series: &str, packages: &[&'static str]) -> Option<&'static str> {
        Kernel::find(series)?.sources.first()?.newest(packages.iter().copied())
    }

    #[test]
    fn newest_is_by_number_and_of_the_right_flavour() {
        let packages = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-48-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64-dbg",
            "linux-image-6.1.0-51-amd64",
            "linux-image-6.1.0-52-rt-cloud-amd64",
            "linux-image-6.12.9+bpo-cloud-amd64",
            "linux-image-6.12.38+deb12-cloud-amd64",
            "linux-image-6.1.0--cloud-amd64",
            "linux-binary-7.2.13+deb14-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-binary-unsigned-7.4.1+deb13-cloud-amd64",
        ];
        assert_eq!(newest("6.1", &packages), Some("linux-image-6.1.0-48-cloud-amd64"));
        assert_eq!(newest("6.12", &packages), Some("linux-image-6.12.38+deb12-cloud-amd64"));
        assert_eq!(newest("7", &packages), Some("linux-binary-7.3.4+deb13-cloud-amd64"));
        assert_eq!(newest("6.1", &[]), None);
    }

    #[test]
    fn the_table_has_the_default_and_each_series_once() {
        assert!(Kernel::find(DEFAULT).is_some());
        for kernel in KERNELS {
            let same = KERNELS.iter().filter(|other| other.series == kernel.series);
            assert_eq!(same.count(), 1, "{}", kernel.series);
            assert!(!kernel.sources.is_empty(), "{}", kernel.series);
        }
    }
}
