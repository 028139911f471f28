//! What a containerd of one's own is told, and the image that its containers run: a static busybox.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::corpus::find_program;

/// The image, as pods ask for it.
pub const IMAGE: &str = "docker.io/library/killwatch-test:1";

/// The configuration of one whose files are all in `dir`. The plugins that are left out serve other file systems and only complain.
pub(super) fn text(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.overlayfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{dir}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{dir}/cni"
    conf_dir = "{dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{dir}/runc"
"#
    )
}

/// Makes the image in `dir`, in the form of `docker save`, and has containerd take it in.
pub(super) fn import_image(dir: &Path, socket: &Path) -> Result<()> {
    let busybox = find_program("busybox").context("busybox is not installed")?;
    let image = dir.join("image");
    let bin = image.join("layer/bin");
    std::fs::create_dir_all(&bin).context("make the image's root")?;
    std::fs::copy(&busybox, bin.join("busybox")).context("copy busybox")?;
    // The one thing that a sandbox runs.
    let config = |diff_id: &str| {
        json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Cmd": ["/bin/busybox", "sleep", "1000000"], "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        })
    };
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    let run =
        |arguments: &[&str]| output_of(Command::new(&busybox).args(arguments).current_dir(&image));
    run(&["tar", "-cf", "layer.tar", "-C", "layer", "bin"])?;
    let sum = run(&["sha256sum", "layer.tar"])?;
    let sum = sum.split_whitespace().next().context("no checksum")?;
    let write = |name: &str, text: String| {
        std::fs::write(image.join(name), text).with_context(|| format!("write {name}"))
    };
    write("config.json", config(&format!("sha256:{sum}")).to_string())?;
    write("manifest.json", manifest.to_string())?;
    run(&["tar", "-cf", "image.tar", "manifest.json", "config.json", "layer.tar"])?;
    let ctr = find_program("ctr").context("ctr is not installed")?;
    let mut import = Command::new(ctr);
    import.arg("--address").arg(socket).args(["--namespace", "k8s.io", "images", "import"]);
    import.args(["--snapshotter", "native", "image.tar"]).current_dir(&image);
    output_of(&mut import).map(drop)?;
    std::fs::remove_dir_all(&image).context("remove the image's files")
}

/// Runs a command to its end; what it printed.
pub(super) fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
