//! Numbers and states in words.

use crate::death::{Cause, Death, Rule, State, Victim};

/// Bytes in IEC units, one decimal.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    // Tenths by whole numbers, rounded down: 32 MiB less a page must not read as the full limit.
    let power = (n.ilog2() / 10).clamp(1, 6);
    let tenths = (u128::from(n) * 10) >> (10 * power);
    let unit = UNITS.get(power as usize - 1).copied().unwrap_or("EiB");
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Seconds as a person says them.
pub(super) fn span(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates; a sign is cut off first"
    )]
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{:.3} s", seconds.max(0.0)),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// A time before something, to a tenth of a second at most.
pub(crate) fn about(seconds: f64) -> String {
    if (0.0..59.95).contains(&seconds) { format!("{seconds:.1} s") } else { span(seconds) }
}

/// An amount that grows or shrinks by so many bytes.
pub(crate) fn change(bytes_more: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates; the sign is shown by itself"
    )]
    let amount = bytes(bytes_more.abs() as u64);
    format!("{}{amount}", if bytes_more < 0.0 { "-" } else { "+" })
}

/// What a rule is about.
pub(super) const fn rule(rule: Rule) -> &'static str {
    match rule {
        Rule::Sibling => "a sibling took it",
        Rule::ParentLimit => "a parent's limit",
        Rule::Tmpfs => "tmpfs and shared memory",
        Rule::PageCache => "page cache",
        Rule::KernelMemory => "the kernel's own memory",
        Rule::Runtime => "the runtime's heap",
        Rule::TooManyWorkers => "many processes",
        Rule::Leak => "steady growth",
        Rule::Spike => "a spike",
        Rule::LimitTooSmall => "a limit too small",
        Rule::NoSwap => "no swap",
    }
}

/// A command line, arguments that need it quoted, at most `max` characters.
pub(super) fn command(args: &[String], max: usize) -> String {
    let plain = |arg: &str| {
        !arg.is_empty() && !arg.contains(|c: char| c.is_whitespace() || "'\"\\".contains(c))
    };
    let quoted: Vec<_> =
        args.iter().map(|arg| if plain(arg) { arg.clone() } else { format!("{arg:?}") }).collect();
    let line = quoted.join(" ");
    match line.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// The signal that ended it.
pub(crate) fn signal(victim: &Victim) -> String {
    match (&victim.signal_name, victim.signal) {
        (Some(name), _) => name.clone(),
        (None, Some(number)) => format!("signal {number}"),
        (None, None) => "a signal".to_owned(),
    }
}

/// How it ended, as a wait status tells it.
pub(super) fn ended(victim: &Victim) -> String {
    let core = if victim.core_dumped == Some(true) { ", core dumped" } else { "" };
    match (victim.exit_code, victim.signal) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(_)) => format!("died of {}{core}", signal(victim)),
        (None, None) => "has not ended yet".to_owned(),
    }
}

/// The same of a death. Where only the kernel log told of it, how it ended is not known.
pub(super) fn end(death: &Death) -> String {
    match (death.state, death.victim.status) {
        (State::Dead, None) => "was killed; how it ended is not known".to_owned(),
        _ => ended(&death.victim),
    }
}

/// What happened to a child, after its name.
pub(super) fn had_happened(cause: Cause) -> &'static str {
    match cause {
        Cause::OomMemcg => "was killed by the kernel's OOM killer under a memory cgroup's limit",
        Cause::OomGlobal | Cause::OomCpuset | Cause::OomMempolicy => {
            "was killed by the kernel's OOM killer"
        }
        Cause::OomUserspace => "was killed by a userspace OOM killer",
        Cause::OomCollateral => "was killed along with a victim of the kernel's OOM killer",
        Cause::StopTimeout => "was killed as its stop ran out",
        Cause::Killed => "was killed",
        Cause::PidnsTeardown => "was killed with its pid namespace",
        Cause::Abort => "aborted itself",
        Cause::Crash => "crashed",
        Cause::Rlimit => "hit a resource limit",
        Cause::Relayed | Cause::Unknown => "died",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let said = [0, 1023, 1024, 1536, (32 << 20) - 4096, 32 << 20, u64::MAX].map(bytes);
        assert_eq!(
            said,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "31.9 MiB", "32.0 MiB", "15.9 EiB"]
        );
    }

    #[test]
    fn spans() {
        let said = [-1.0, 0.0421, 61.0, 7_260.0, 90_000.0, f64::NAN, f64::INFINITY].map(span);
        assert_eq!(said[..5], ["0.000 s", "0.042 s", "1 min 1 s", "2 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn times_and_changes() {
        let said = [0.0, 52.34, 59.94, 59.96, 312.0, f64::NAN].map(about);
        assert_eq!(said[..5], ["0.0 s", "52.3 s", "59.9 s", "59.960 s", "5 min 12 s"]);
        let said = [0.0, 46_137_344.0, -2048.0, f64::NEG_INFINITY].map(change);
        assert_eq!(said, ["+0 B", "+44.0 MiB", "-2.0 KiB", "-15.9 EiB"]);
    }

    #[test]
    fn commands() {
        let args = ["sh", "-c", "a 'b'", ""].map(str::to_owned);
        assert_eq!(command(&args, 100), r#"sh -c "a 'b'" """#);
        assert_eq!(command(&args, 4), "sh -…");
        assert_eq!(command(&["ééé".to_owned()], 2), "éé…");
    }
}
