//! `image`: a container's image, written without a runtime, a registry or a base: the daemon, the libraries that it needs, and whom it trusts.
//!
//! The archive is an OCI image layout (`index.json`), which `ctr`, `nerdctl`, `skopeo` and `podman` take, and has the `manifest.json` of `docker save`
//! beside it, for `docker load`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tarball::Tarball;
use super::{Release, elf, ensure_tools, sbom, stripped};
use crate::build;
use crate::context::Ctx;
use crate::process::{self, step};

/// Its name without a registry's.
const NAME: &str = "docker.io/library/killwatch";
/// Whom the daemon trusts that speaks TLS to it.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// What may be mounted over, so that a read-only root needs nothing to be made.
const PLACES: [&str; 9] = [
    "etc/killwatch",
    "run/killwatch",
    "run/containerd",
    "var/lib/killwatch",
    "var/log/killwatch",
    "proc",
    "sys",
    "dev",
    "tmp",
];

/// Arguments of `image`.
#[derive(clap::Args)]
pub(crate) struct ImageArgs {
    /// The machine that it is for
    #[arg(long, value_enum, default_value_t = Machine::native())]
    machine: Machine,
    /// The daemon for that machine, built already; for this machine it is built
    #[arg(long)]
    daemon: Option<PathBuf>,
    /// Directory that looks like the root of such a machine, for the libraries
    #[arg(long, default_value = "/")]
    sysroot: PathBuf,
}

/// A machine that there is an image for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Machine {
    /// `x86_64`
    Amd64,
    /// `aarch64`
    Arm64,
}

impl Machine {
    const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// As OCI calls it.
    const fn architecture(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    const fn triplet(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }
}

/// `image`.
pub(crate) fn run(ctx: &Ctx, args: &ImageArgs) -> Result<()> {
    let made = match &args.daemon {
        Some(daemon) => make(ctx, args.machine, daemon, &args.sysroot)?,
        None if args.machine == Machine::native() => native(ctx, &build::daemon(ctx)?.daemon)?,
        None => bail!("for another machine than this one, name --daemon and --sysroot"),
    };
    eprintln!("{}: {} KiB", made.display(), fs::metadata(&made)?.len() / 1024);
    Ok(())
}

/// Makes it for this machine; where it is.
pub(crate) fn native(ctx: &Ctx, daemon: &Path) -> Result<PathBuf> {
    make(ctx, Machine::native(), daemon, Path::new("/"))
}

fn make(ctx: &Ctx, machine: Machine, daemon: &Path, sysroot: &Path) -> Result<PathBuf> {
    ensure_tools()?;
    step("image", || {
        let release = Release::of(ctx);
        let strip = if machine == Machine::native() {
            "strip".to_owned()
        } else {
            format!("{}-strip", machine.triplet())
        };
        let program = stripped(ctx, daemon, &strip)?;
        let libraries = elf::libraries(&program, sysroot, machine.triplet())?;
        let layer = layer(ctx, &release, &program, &libraries)?;
        let archive = archive(&release, machine, &layer)?;
        let directory = ctx.target.join("image");
        fs::create_dir_all(&directory).context("cannot make a directory")?;
        let name = format!("killwatch-{}-{}.tar", release.version, machine.architecture());
        let file = directory.join(name);
        fs::write(&file, archive).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    })
}

/// All that is in it.
fn layer(
    ctx: &Ctx,
    release: &Release,
    program: &Path,
    libraries: &[elf::Library],
) -> Result<Vec<u8>> {
    let read =
        |file: &Path| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    let mut layer = Tarball::new(release.epoch);
    layer.file("usr/bin/killwatch", 0o755, &read(program)?)?;
    for library in libraries {
        let path = library.path.to_str().context("a library's name")?;
        layer.file(path, 0o755, &read(&library.file)?)?;
    }
    layer.file(AUTHORITIES, 0o644, &read(Path::new(AUTHORITIES))?)?;
    // Names are looked up in /etc/hosts, which the kubelet writes, and by DNS.
    layer.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n")?;
    let sbom = sbom::of(ctx, release, &origins(libraries))?;
    layer.file("usr/share/doc/killwatch/sbom.cdx.json", 0o644, sbom.as_bytes())?;
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let path = format!("usr/share/doc/killwatch/{name}");
        layer.file(&path, 0o644, &read(&ctx.root.join(name))?)?;
    }
    PLACES.iter().try_for_each(|place| layer.directory(place))?;
    layer.finish()
}

/// The Debian packages that libraries and authorities come from: name, version, package URL. None where dpkg does not know.
fn origins(libraries: &[elf::Library]) -> Vec<[String; 3]> {
    let files =
        libraries.iter().map(|library| library.file.as_path()).chain([Path::new(AUTHORITIES)]);
    let mut found: Vec<[String; 3]> = files.filter_map(origin).collect();
    found.sort();
    found.dedup();
    found
}

fn origin(file: &Path) -> Option<[String; 3]> {
    // dpkg knows a file by the name that it was installed under, which may lie behind a link.
    let real = file.canonicalize().ok()?;
    let unmerged = real.strip_prefix("/usr").map(|rest| Path::new("/").join(rest));
    let query = |file: &Path| {
        let output = Command::new("dpkg-query").arg("-S").arg(file).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.split_once(": ").map(|(package, _)| package.to_owned())
    };
    // The file of authorities is made at installation, and is no package's.
    let package = if file == Path::new(AUTHORITIES) {
        "ca-certificates".to_owned()
    } else {
        query(&real).or_else(|| query(&unmerged.ok()?))?
    };
    let mut show = Command::new("dpkg-query");
    show.args(["-W", "-f", "${Package} ${Version} ${Architecture}", &package]);
    let shown = process::output(&mut show).ok()?;
    let [name, version, machine] = shown.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let purl = format!("pkg:deb/debian/{name}@{}?arch={machine}", version.replace('+', "%2B"));
    Some([name.to_owned(), version.to_owned(), purl])
}

/// The image around its one layer.
fn archive(release: &Release, machine: Machine, layer: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    let packed =
        encoder.write_all(layer).and_then(|()| encoder.finish()).context("cannot compress")?;
    let config = serde_json::to_vec(&config(release, machine, &digest(layer)))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &packed)],
        "annotations": labels(release),
    }))?;
    let name = format!("{NAME}:{}", release.version);
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({"architecture": machine.architecture(), "os": "linux"});
    entry["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": release.version,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    let docker = json!([{
        "Config": blob(&config), "RepoTags": [format!("killwatch:{}", release.version)], "Layers": [blob(&packed)],
    }]);
    let mut archive = Tarball::new(release.epoch);
    archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.file("index.json", 0o644, &serde_json::to_vec(&index)?)?;
    archive.file("manifest.json", 0o644, &serde_json::to_vec(&docker)?)?;
    for bytes in [&config, &manifest, &packed] {
        archive.file(&blob(bytes), 0o644, bytes)?;
    }
    archive.finish()
}

fn config(release: &Release, machine: Machine, layer: &str) -> Value {
    json!({
        "architecture": machine.architecture(),
        "os": "linux",
        "created": created(release),
        "config": {
            "Entrypoint": ["/usr/bin/killwatch"],
            "Cmd": ["run"],
            "Env": ["PATH=/usr/bin"],
            "WorkingDir": "/",
            "User": "0:0",
            "Labels": labels(release),
        },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
        "history": [{ "created": created(release), "created_by": "cargo xtask image" }],
    })
}

/// The names are those of the OCI's image specification (annotations.md).
fn labels(release: &Release) -> Value {
    let mut labels = json!({
        "org.opencontainers.image.title": "killwatch",
        "org.opencontainers.image.description": "Tells who was killed on this host, by what, why, and what to do",
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        "org.opencontainers.image.created": created(release),
    });
    if let Some(revision) = &release.revision {
        labels["org.opencontainers.image.revision"] = json!(revision);
    }
    labels
}

/// RFC 3339, by the one program that is everywhere.
fn created(release: &Release) -> Value {
    let at = format!("@{}", release.epoch);
    let mut date = Command::new("date");
    let said = process::output(date.args(["--utc", "+%Y-%m-%dT%H:%M:%SZ", "-d", &at]));
    said.map_or(Value::Null, |text| json!(text.trim()))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_twice_it_is_the_same() {
        let release =
            Release { version: "1.2.3".into(), epoch: 1_700_000_000, revision: Some("abc".into()) };
        let made = || archive(&release, Machine::Arm64, b"a layer").unwrap();
        assert_eq!(made(), made());
        let said = config(&release, Machine::Arm64, "sha256:x");
        assert_eq!(said["created"], "2023-11-14T22:13:20Z");
        assert_eq!(said["architecture"], "arm64");
        assert_eq!(hex(b"abc").get(..8), Some("ba7816bf"));
    }
}
