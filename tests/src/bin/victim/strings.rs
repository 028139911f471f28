//! The memory that holds this process's command line and environment.

use std::ffi::c_void;
use std::ops::Range;

use anyhow::{Context as _, Result};
use rustix::mm::{mlock, munlock, munmap};

/// Keeps them in memory: a machine without room swaps out what nobody looks at, and an old `oom_reaper` takes what is not locked. Not needed to be a
/// victim, so that it is refused is no error.
pub(crate) fn hold() -> Result<()> {
    let (arguments, environment) = bounds()?;
    let all = arguments.start..environment.end.max(arguments.end);
    // SAFETY: locking changes nothing that this program could see.
    let _ = unsafe { mlock(at(all.start), all.len()) };
    Ok(())
}

/// Unmaps every page that holds nothing but environment.
pub(crate) fn give_environment_back() -> Result<()> {
    let (_, environment) = bounds()?;
    let page = rustix::param::page_size();
    let start = environment.start.next_multiple_of(page);
    let len = (environment.end / page * page).checked_sub(start).filter(|len| *len > 0);
    let len = len.context("the environment fills no page: give it more")?;
    // SAFETY: these pages hold the strings of the environment and nothing else, and no code of this program looks at it before the end.
    unsafe {
        munlock(at(start), len).context("let go of the memory")?;
        munmap(at(start), len).context("give the memory back")
    }
}

fn at(address: usize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address)
}

/// Where the arguments and the environment are.
fn bounds() -> Result<(Range<usize>, Range<usize>)> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("look at this process")?;
    let fields = stat.rsplit_once(") ").context("a stat line without a name")?.1;
    let mut bounds = fields.split(' ').skip(45).map(str::parse::<usize>);
    let mut bound = || bounds.next().context("no bounds of the strings")?.context("an address");
    Ok((bound()?..bound()?, bound()?..bound()?))
}
