//! What is in the Debian package, and where: the one list of it.

/// A file: where it comes from, where it goes, its mode. What ends in `.gz` is compressed on the way.
pub(super) struct File {
    /// From the root of the repository.
    pub(super) from: &'static str,
    /// From the root of the file system.
    pub(super) to: &'static str,
    /// Its mode.
    pub(super) mode: u32,
}

const fn file(from: &'static str, to: &'static str) -> File {
    File { from, to, mode: 0o644 }
}

/// Files of the repository.
pub(super) const FILES: &[File] = &[
    file("deploy/systemd/killwatch.service", "lib/systemd/system/killwatch.service"),
    file("deploy/systemd/killwatch.tmpfiles", "usr/lib/tmpfiles.d/killwatch.conf"),
    file("deploy/debian/killwatch.yaml", "etc/killwatch/killwatch.yaml"),
    file("deploy/debian/copyright", "usr/share/doc/killwatch/copyright"),
    file("CHANGELOG.md", "usr/share/doc/killwatch/CHANGELOG.md.gz"),
];

/// Completions, by the name that clap gives them.
pub(super) const COMPLETIONS: &[File] = &[
    file("killwatch.bash", "usr/share/bash-completion/completions/killwatch"),
    file("killwatch.fish", "usr/share/fish/vendor_completions.d/killwatch.fish"),
    file("_killwatch", "usr/share/zsh/vendor-completions/_killwatch"),
];

/// What dpkg runs.
pub(super) const SCRIPTS: &[&str] = &["postinst", "postrm", "prerm"];

/// Files that a user may change, and an upgrade asks about.
pub(super) const CONFFILES: &str = "/etc/killwatch/killwatch.yaml\n";

/// What it is, in the words of deb-control(5).
pub(super) const DESCRIPTION: &str = "\
tells who was killed on this host, by what, why, and what to do
 A worker gets SIGKILL, and its supervisor sees exit code 137 or nothing.
 killwatch watches the kernel with eBPF and makes a record of every process
 that ends abnormally: the kernel's OOM killer and the cgroup whose limit was
 hit, another process and its name, its own abort or crash. It counts them for
 Prometheus, writes them as lines of JSON, and answers \"killwatch why\".
 .
 It needs Linux 5.10 or later with BTF, as every Debian kernel has it.
";
