//! Waiting for a state, with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Whether this is a virtual machine that the tests have for themselves (`KILLWATCH_VM=1`).
#[must_use]
pub fn in_vm() -> bool {
    std::env::var_os("KILLWATCH_VM").is_some_and(|value| value == "1")
}

/// A duration as long as this machine needs: an emulated one is slower by far.
#[must_use]
pub fn scaled(duration: Duration) -> Duration {
    duration * if in_vm() { 10 } else { 1 }
}

/// Looks until there is something to see.
///
/// # Errors
/// What `look` fails with, at once; else, after `within` (scaled), an error that names `what`.
pub fn wait_until<T>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let within = scaled(within);
    let began = Instant::now();
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        if began.elapsed() >= within {
            bail!("waited {within:?} in vain: {what}");
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one pause between two looks at a state, under a deadline"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_again_until_there_is_something() {
        let mut looks = 0;
        let seen = wait_until(Duration::from_secs(10), "a third look", || {
            looks += 1;
            Ok((looks == 3).then_some("seen"))
        });
        assert_eq!(seen.unwrap(), "seen");
        assert_eq!(looks, 3);
    }

    #[test]
    fn gives_up_and_says_on_what() {
        let error = wait_until::<()>(Duration::ZERO, "the end of time", || Ok(None)).unwrap_err();
        assert!(error.to_string().contains("the end of time"), "{error}");
    }

    #[test]
    fn fails_at_once_when_looking_fails() {
        let mut looks = 0;
        let error = wait_until::<()>(Duration::from_secs(60), "never", || {
            looks += 1;
            bail!("blind")
        });
        assert_eq!(error.unwrap_err().to_string(), "blind");
        assert_eq!(looks, 1);
    }
}
