//! `build` and `run`: the released daemon, and the daemon in the foreground.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::context::Ctx;
use crate::{object, process, setup};

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// Handed to `killwatch run` as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

/// What a build leaves.
pub(crate) struct Built {
    /// The daemon.
    pub(crate) daemon: PathBuf,
    /// The object inside it.
    pub(crate) object: PathBuf,
}

/// Builds the object and the released daemon around it.
pub(crate) fn daemon(ctx: &Ctx) -> Result<Built> {
    setup::ensure_make()?;
    let object = object::build(ctx)?;
    process::step("build the daemon", || {
        process::run(cargo(ctx, &object).args([
            "build",
            "--release",
            "--locked",
            "-p",
            "killwatch",
        ]))
    })?;
    Ok(Built { daemon: ctx.daemon(), object })
}

/// A cargo whose builds of the daemon embed that object. One and the same variable everywhere, or each would rebuild.
pub(crate) fn cargo(ctx: &Ctx, object: &Path) -> Command {
    let mut cargo = process::cargo(ctx);
    cargo.env(object::OBJECT_VARIABLE, object);
    cargo
}

/// `build`.
pub(crate) fn run(ctx: &Ctx) -> Result<()> {
    let built = daemon(ctx)?;
    eprintln!("{}", built.daemon.display());
    Ok(())
}

/// `run`: becomes the daemon.
pub(crate) fn run_daemon(ctx: &Ctx, args: &RunArgs) -> Result<()> {
    let built = daemon(ctx)?;
    let error = Command::new(&built.daemon).arg("run").args(&args.flags).exec();
    Err(error).with_context(|| format!("cannot run {}", built.daemon.display()))
}

/// Which optimisations the rooms are built with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rooms {
    /// The daemon's own: to be timed.
    Released,
    /// Those that take a quarter of the time to link: to be counted, one commit against another.
    Counted,
}

/// Builds the bench of the daemon's rooms and says where it is.
pub(crate) fn rooms(ctx: &Ctx, object: &Path, how: Rooms) -> Result<PathBuf> {
    let profile = match how {
        Rooms::Released => "release",
        Rooms::Counted => "bench",
    };
    let mut bench = cargo(ctx, object);
    bench.args(["bench", "--locked", "-p", "killwatch", "--bench", "rooms", "--no-run"]);
    bench.args(["--profile", profile]);
    // Cargo builds the daemon beside it, as benches are built: it is not to take the place of the released one.
    bench.arg("--target-dir").arg(ctx.root.join("target/rooms"));
    let messages = process::output(bench.arg("--message-format=json-render-diagnostics"))?;
    let built = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "rooms")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    built.context("cargo built no bench `rooms`")
}
