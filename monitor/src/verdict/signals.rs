//! Signals by number, as on x86_64 and aarch64 (signal(7)).

/// SIGABRT.
pub const SIGABRT: u8 = 6;
/// SIGKILL.
pub const SIGKILL: u8 = 9;
/// SIGTERM.
pub const SIGTERM: u8 = 15;

const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The name of a signal; `signal N` for real-time and invalid ones.
#[must_use]
pub fn name(signal: u8) -> String {
    match signal.checked_sub(1).and_then(|place| NAMES.get(usize::from(place))) {
        Some(name) => (*name).to_owned(),
        None => format!("signal {signal}"),
    }
}

/// Whether the signal is what a fault of the program itself looks like: SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
#[must_use]
pub const fn is_fault(signal: u8) -> bool {
    matches!(signal, 4 | 5 | 7 | 8 | 11 | 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(
            (name(1), name(9), name(31)),
            ("SIGHUP".into(), "SIGKILL".into(), "SIGSYS".into())
        );
        assert_eq!((name(0), name(34)), ("signal 0".into(), "signal 34".into()));
    }
}
