//! The kernels that the end-to-end tests run under. To add one, add a line.

/// A series of kernels and where Debian keeps it.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What `--kernel` takes.
    pub(crate) series: &'static str,
    /// Debian architecture of the package.
    pub(crate) arch: &'static str,
    /// Suites that may hold the newest.
    pub(crate) suites: &'static [&'static str],
    /// How the package's name begins. What stands between this and `suffix` is the revision, and has no hyphen.
    pub(crate) prefix: &'static str,
    /// How it ends.
    pub(crate) suffix: &'static str,
}

/// All of them, the default first.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        series: "6.1",
        arch: "amd64",
        suites: &["bookworm", "bookworm-security"],
        prefix: "linux-image-6.1.0-",
        suffix: "-cloud-amd64",
    },
    Kernel {
        series: "6.12",
        arch: "amd64",
        suites: &["bookworm-backports"],
        prefix: "linux-image-6.12.",
        suffix: "-cloud-amd64",
    },
];

impl Kernel {
    /// The newest of these packages that is of this series.
    pub(crate) fn newest<'a>(&self, packages: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        packages.filter_map(|name| Some((self.revision(name)?, name))).max().map(|(_, name)| name)
    }

    /// The numbers of a package's revision, `None` if it is not of this series.
    fn revision(&self, package: &str) -> Option<Vec<u64>> {
        let middle = package.strip_prefix(self.prefix)?.strip_suffix(self.suffix)?;
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
        let kernel = KERNELS.iter().find(|kernel| kernel.series == series)?;
        kernel.newest(packages.iter().copied())
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
        ];
        assert_eq!(newest("6.1", &packages), Some("linux-image-6.1.0-48-cloud-amd64"));
        assert_eq!(newest("6.12", &packages), Some("linux-image-6.12.38+deb12-cloud-amd64"));
        assert_eq!(newest("6.1", &[]), None);
    }
}
