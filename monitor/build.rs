//! Embeds the kernel side's object, which `cargo xtask build` makes first.
//!
//! Without it the crate still compiles, so that editors and `cargo clippy --workspace` work on a fresh clone; such a daemon
//! says at start that it has no kernel side.

use std::io::Write as _;
use std::{env, fs, path::PathBuf};

use flate2::Compression;
use flate2::write::DeflateEncoder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let object = match env::var_os("KILLWATCH_BPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => manifest.join("../target/bpf/killwatch.bpf.o"),
    };
    println!("cargo::rerun-if-env-changed=KILLWATCH_BPF_OBJECT");
    println!("cargo::rerun-if-changed={}", object.display());
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join("killwatch.bpf.o.deflate");
    if object.exists() {
        // A fifth of its size.
        let mut packed = DeflateEncoder::new(fs::File::create(&embedded)?, Compression::best());
        packed.write_all(&fs::read(&object)?)?;
        packed.finish()?;
    } else {
        println!("cargo::warning=no kernel side at {}: run `cargo xtask build`", object.display());
        fs::write(&embedded, [])?;
    }
    Ok(())
}
