//! `killwatch detach`: takes away what of the kernel side outlived its daemon.

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::probe::pins::{Directory, PinPath, dir};
use crate::text::one_line;

/// Arguments of `killwatch detach`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory in which the kernel side is pinned
    #[arg(long = "probe.pin", value_name = "PATH", default_value_t, env = "KILLWATCH_PROBE_PIN")]
    pin: PinPath,
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    super::print(&detach(&args.pin)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Removes all that is pinned, and says what that was.
fn detach(pin: &PinPath) -> anyhow::Result<String> {
    let Some(path) = pin.directory() else {
        return Ok("probe.pin is none: nothing is pinned\n".to_owned());
    };
    let shown = one_line(&path.to_string_lossy());
    if !path.try_exists().with_context(|| format!("{shown} cannot be looked at"))? {
        return Ok(format!("nothing is pinned in {shown}\n"));
    }
    // The lock is held until all is gone, so that no daemon takes over what is half removed.
    let directory = Directory::open_existing(&path).context("nothing was removed")?;
    let contents = directory.contents().with_context(|| format!("{shown} cannot be listed"))?;
    let sets = contents.sets.iter().map(|set| directory.set(set));
    let mut said = String::new();
    for set in sets.chain(contents.unfinished) {
        let name = one_line(&set.to_string_lossy());
        let links = dir::remove(&set).with_context(|| format!("{name} cannot be removed"))?;
        // Writing to a String cannot fail.
        let _ = writeln!(said, "removed {name}: {links} programs are detached");
    }
    for stranger in &contents.strangers {
        let _ =
            writeln!(said, "left {}: it is not killwatch's", one_line(&stranger.to_string_lossy()));
    }
    if contents.strangers.is_empty() {
        fs::remove_dir(&path).with_context(|| format!("{shown} cannot be removed"))?;
    }
    if said.is_empty() {
        let _ = writeln!(said, "nothing is pinned in {shown}");
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_nothing_is_removed() {
        assert!(detach(&PinPath::None).unwrap().contains("nothing is pinned"));
        let dir = tempfile::Builder::new().prefix("pins").tempdir().unwrap();
        let pin: PinPath = dir.path().join("none-such").to_str().unwrap().parse().unwrap();
        assert!(detach(&pin).unwrap().contains("nothing is pinned in"));
    }

    #[test]
    fn what_is_in_no_bpf_file_system_is_left_alone() {
        let dir = tempfile::Builder::new().prefix("pins").tempdir().unwrap();
        fs::write(dir.path().join("mine"), "").unwrap();
        let pin: PinPath = dir.path().to_str().unwrap().parse().unwrap();
        let error = format!("{:#}", detach(&pin).unwrap_err());
        assert!(error.contains("not in a BPF file system"), "{error}");
        assert!(dir.path().join("mine").exists());
    }
}
