//! The matrix: which kernel is booted with which cgroup hierarchies, and what else is special about the machine.

use std::fmt;

use clap::ValueEnum;

use super::kernels::{self, Kernel};

/// Where memory is accounted in the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cgroup {
    /// v1 only.
    V1,
    /// v2 only.
    V2,
    /// Memory on v1; v2 beside it, without controllers.
    Hybrid,
}

/// What else is special about the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Guest {
    /// Nothing: a shell script is its first process.
    Plain,
    /// Locked down to confidentiality: BPF may not read the kernel's memory.
    Lockdown,
    /// systemd is its first process, and systemd-oomd runs.
    Systemd,
}

/// One boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// What is booted.
    pub(crate) kernel: &'static Kernel,
    /// Its hierarchies.
    pub(crate) cgroup: Cgroup,
    /// Its user space.
    pub(crate) guest: Guest,
}

/// The matrix. Debian's kernels from 6.12 on are built without v1's memory controller (`CONFIG_MEMCG_V1`).
const MATRIX: &[(&str, Cgroup, Guest)] = &[
    ("5.10-old", Cgroup::V2, Guest::Plain),
    ("5.10-old", Cgroup::V1, Guest::Plain),
    ("5.10", Cgroup::V2, Guest::Plain),
    ("5.10", Cgroup::Hybrid, Guest::Plain),
    ("6.1", Cgroup::V2, Guest::Plain),
    ("6.1", Cgroup::V1, Guest::Plain),
    ("6.1", Cgroup::Hybrid, Guest::Plain),
    ("6.12", Cgroup::V2, Guest::Plain),
    ("6.12", Cgroup::V2, Guest::Systemd),
    ("6.12", Cgroup::V2, Guest::Lockdown),
    ("6.18", Cgroup::V2, Guest::Plain),
    ("7", Cgroup::V2, Guest::Plain),
];

/// What the command line asks for; `None` is no wish.
#[derive(Debug, Default, Clone)]
pub(crate) struct Wish {
    /// The whole matrix, or what of it fits the rest.
    pub(crate) all: bool,
    /// A series of the table of kernels.
    pub(crate) kernel: Option<String>,
    /// Hierarchies.
    pub(crate) cgroup: Option<Cgroup>,
    /// User space.
    pub(crate) guest: Option<Guest>,
}

/// The rows to boot: of the matrix those that fit, or the one that is described, whether it is in the matrix or not. Empty if the
/// matrix has no such row, or the table no such kernel.
pub(crate) fn select(wish: &Wish) -> Vec<Row> {
    if wish.all {
        return MATRIX
            .iter()
            .filter(|(kernel, cgroup, guest)| {
                wish.kernel.as_ref().is_none_or(|series| series == kernel)
                    && wish.cgroup.is_none_or(|wanted| wanted == *cgroup)
                    && wish.guest.is_none_or(|wanted| wanted == *guest)
            })
            .filter_map(|&(series, cgroup, guest)| row(series, cgroup, guest))
            .collect();
    }
    let series = wish.kernel.as_deref().unwrap_or(kernels::DEFAULT);
    let cgroup = wish.cgroup.unwrap_or(Cgroup::V2);
    row(series, cgroup, wish.guest.unwrap_or(Guest::Plain)).into_iter().collect()
}

fn row(series: &str, cgroup: Cgroup, guest: Guest) -> Option<Row> {
    Some(Row { kernel: Kernel::find(series)?, cgroup, guest })
}

impl Cgroup {
    /// As the machine's first process is told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        }
    }
}

impl Guest {
    /// As the machine's first process is told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Lockdown => "lockdown",
            Self::Systemd => "systemd",
        }
    }
}

impl fmt::Display for Row {
    /// Also the name of its files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kernel.series, self.cgroup.name())?;
        match self.guest {
            Guest::Plain => Ok(()),
            guest => write!(f, "-{}", guest.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::KERNELS;
    use super::*;

    fn names(wish: &Wish) -> Vec<String> {
        select(wish).iter().map(Row::to_string).collect()
    }

    #[test]
    fn each_row_is_there_once_and_of_a_kernel_in_the_table() {
        let names = names(&Wish { all: true, ..Wish::default() });
        assert_eq!(names.len(), MATRIX.len());
        let mut distinct = names.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
    }

    #[test]
    fn each_kernel_runs_v2_and_v1_has_two_kernels_in_each_form() {
        let count = |cgroup| {
            let rows = select(&Wish { all: true, cgroup: Some(cgroup), ..Wish::default() });
            let mut series: Vec<_> = rows.iter().map(|row| row.kernel.series).collect();
            series.dedup();
            series.len()
        };
        assert_eq!(count(Cgroup::V2), KERNELS.len());
        assert!(count(Cgroup::V1) >= 2 && count(Cgroup::Hybrid) >= 2);
    }

    #[test]
    fn one_row_is_the_default_or_as_described() {
        assert_eq!(names(&Wish::default()), ["6.1-v2"]);
        let wish =
            Wish { kernel: Some("7".into()), guest: Some(Guest::Systemd), ..Wish::default() };
        assert_eq!(names(&wish), ["7-v2-systemd"]);
        assert!(names(&Wish { kernel: Some("4.19".into()), ..Wish::default() }).is_empty());
    }

    #[test]
    fn the_matrix_can_be_narrowed() {
        let wish = |kernel: &str, cgroup| Wish {
            all: true,
            kernel: Some(kernel.into()),
            cgroup,
            guest: None,
        };
        assert_eq!(names(&wish("6.1", None)), ["6.1-v2", "6.1-v1", "6.1-hybrid"]);
        assert_eq!(names(&wish("6.1", Some(Cgroup::V1))), ["6.1-v1"]);
        assert!(names(&wish("7", Some(Cgroup::V1))).is_empty());
    }
}
