//! Signals by number, as on x86_64 and aarch64 (signal(7)).

/// SIGABRT.
pub const SIGABRT: u8 = 6;
/// SIGKILL.
pub const SIGKILL: u8 = 9;
/// SIGPIPE.
pub const SIGPIPE: u8 = 13;
/// SIGALRM.
pub const SIGALRM: u8 = 14;
/// SIGTERM.
pub const SIGTERM: u8 = 15;
/// SIGXCPU.
pub const SIGXCPU: u8 = 24;
/// SIGXFSZ.
pub const SIGXFSZ: u8 = 25;
/// SIGVTALRM.
pub const SIGVTALRM: u8 = 26;
/// SIGPROF.
pub const SIGPROF: u8 = 27;
/// SIGSYS.
pub const SIGSYS: u8 = 31;

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

/// What a status above 128 stands for, as a shell, a container runtime or a supervisor shows it: 128 + a signal.
/// `exited`: it is an exit code, which only stands for a signal by custom.
#[must_use]
pub fn meaning(status: u8, exited: bool) -> Option<String> {
    let signal = status.checked_sub(128).filter(|signal| (1..=64).contains(signal))?;
    if exited {
        let name = name(signal);
        return Some(format!(
            "{status} = 128 + {signal}: an exit code that by custom passes on {name}"
        ));
    }
    let known = match signal {
        1 => ", its terminal or controlling process went",
        2 => ", interrupted (Ctrl-C)",
        SIGABRT => ", it gave up by itself (abort)",
        7 => ", a fault: it used memory that is mapped but not there",
        8 => ", a fault: it divided by zero, or the like",
        4 => ", a fault: an instruction that does not exist",
        SIGKILL => ", ended from outside, at once and without a chance to react",
        11 => ", a fault: it used memory that it may not",
        SIGPIPE => ", it wrote to a pipe or socket that nobody reads",
        SIGTERM => ", asked to stop",
        SIGXCPU => ", its CPU time ran out (RLIMIT_CPU)",
        SIGXFSZ => ", a file grew past what it may (RLIMIT_FSIZE)",
        SIGSYS => ", a system call that it may not use",
        _ => "",
    };
    Some(format!("{status} = 128 + {signal}: {}{known}", name(signal)))
}

/// Whether the signal is what a fault of the program itself looks like: SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
#[must_use]
pub const fn is_fault(signal: u8) -> bool {
    matches!(signal, 4 | 5 | 7 | 8 | 11 | 31)
}

/// Whether the kernel sends the signal when a timer of the process rings (setitimer(2), alarm(2)).
#[must_use]
pub const fn is_timer(signal: u8) -> bool {
    matches!(signal, SIGALRM | SIGVTALRM | SIGPROF)
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

    #[test]
    fn codes_are_explained_as_their_authors_know_them() {
        for (status, start) in [
            (134, "134 = 128 + 6: SIGABRT, it gave up"),
            (137, "137 = 128 + 9: SIGKILL, ended from outside"),
            (139, "139 = 128 + 11: SIGSEGV, a fault"),
            (143, "143 = 128 + 15: SIGTERM, asked to stop"),
            (192, "192 = 128 + 64: signal 64"),
        ] {
            assert!(meaning(status, true).is_some_and(|said| said.contains("by custom")));
            assert!(meaning(status, false).is_some_and(|said| said.starts_with(start)), "{status}");
        }
        assert_eq!((meaning(0, false), meaning(128, true), meaning(193, true)), (None, None, None));
    }
}
