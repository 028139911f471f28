//! What looks like a secret in a command line, replaced. Pure.
//!
//! Nobody can know every secret by its looks, so what is replaced is rather too much than too little: the value of whatever is named like a secret, in
//! flags, assignments, headers, queries and connection strings; user and password of addresses; keys and tokens whose form is known.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// Stands for what was there.
pub(super) const REDACTED: &str = "[redacted]";

/// Words of a name that say that its value is a secret.
const WORDS: &[&str] = &[
    "auth",
    "authorization",
    "bearer",
    "cookie",
    "cred",
    "creds",
    "credential",
    "credentials",
    "dsn",
    "jwt",
    "key",
    "keys",
    "pass",
    "passwords",
    "pat",
    "pin",
    "private",
    "psk",
    "pw",
    "pwd",
    "sas",
    "secrets",
    "sig",
    "signature",
    "tokens",
];
/// Ends of such words, where names are written without a sign between them.
const ENDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "credential",
    "credentials",
];
/// Flags of one program that nothing in their name gives away: the value follows, or is written to it.
const FLAGS: &[(&str, &[&str])] = &[
    ("curl", &["-u", "--user", "-U", "--proxy-user", "-E", "-b"]),
    ("docker", &["-p"]),
    ("ldapsearch", &["-w"]),
    ("mariadb", &["-p"]),
    ("mongo", &["-p"]),
    ("mysql", &["-p"]),
    ("openssl", &["-k", "-K", "-passin", "-passout"]),
    ("podman", &["-p"]),
    ("redis-cli", &["-a"]),
    ("smbclient", &["-U"]),
    ("sqlcmd", &["-P"]),
    ("sshpass", &["-p"]),
    ("wget", &["--user"]),
];

/// A name, `=` or `:`, and a value: quoted, or up to what ends one in queries, lists and connection strings.
static PAIR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"([A-Za-z0-9_.\-]{1,64})(["']?\s*[=:]\s*)("[^"]*"?|'[^']*'?|[^\s&;,"'{}\[\]]+)"#)
        .ok()
});
/// A header whose value has several words.
static HEADER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"(?i)((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z0-9\-]*(?:auth|token|key|secret)[a-z0-9\-]*)(["']?\s*[:=]\s*["']?)[^"'\r\n]+"#,
    )
    .ok()
});
/// A flag and its value as words of one text.
static FLAG: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(--?[A-Za-z0-9_.\-]{1,64})(\s+)("[^"]*"?|'[^']*'?|\S+)"#).ok());
/// User and password of an address. A password with a slash in it is none by the rules, and there all the same.
static USERINFO: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"([A-Za-z][A-Za-z0-9+.\-]*://)(?:[^\s"'/?#:]*:[^\s"']*|[^\s"'/?#]*)@"#).ok()
});
/// The same as Go's database drivers write it.
static GO_DSN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"[^\s"'=]+:[^\s"']*@(tcp|unix)\("#).ok());
/// Keys and tokens by their form: GitHub, GitLab, Slack, AWS, API keys that begin with `sk-`, JSON web tokens, PEM.
static FORMS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"gh[opusr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}|glpat-[A-Za-z0-9_\-]{16,}",
        r"|xox[a-z]-[A-Za-z0-9\-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|\bsk-[A-Za-z0-9_\-]{16,}",
        r"|eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+\.?[A-Za-z0-9_\-]*",
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*",
    ))
    .ok()
});

/// The arguments without what looks like a secret, and whether something did.
pub(super) fn command(args: &[String]) -> (Vec<String>, bool) {
    let mut redacted = Vec::with_capacity(args.len());
    let mut flags: &[&str] = &[];
    let mut is_value = false;
    for (n, arg) in args.iter().enumerate() {
        // Also behind what runs it: `sudo mysql -psecret`.
        flags = flags_of(arg).filter(|_| n < 4).unwrap_or(flags);
        let whole = std::mem::take(&mut is_value);
        redacted.push(if whole {
            REDACTED.to_owned()
        } else if let Some(attached) = attached(arg, flags) {
            attached
        } else {
            is_value = flags.contains(&arg.as_str())
                || (arg.starts_with('-') && !arg.contains(['=', ' ']) && is_secret(arg));
            // A shell's script is many words, and an assignment at its begin ends with one of them.
            let is_script = n > 0 && args.get(n - 1).is_some_and(|before| takes_script(before));
            if is_script { text(arg) } else { text(&assignment(arg)) }
        });
    }
    let changed = redacted != args;
    (redacted, changed)
}

/// A text without what looks like a secret.
pub(super) fn text(text: &str) -> String {
    let mut text =
        replaced(&HEADER, text, |found| Some(format!("{}{}", part(found, 1), part(found, 2))));
    text = replaced(&PAIR, &text, |found| {
        // An address is no value of the word before it.
        let address = part(found, 2).contains(':') && part(found, 3).starts_with("//");
        (is_secret(part(found, 1)) && !address && !part(found, 3).starts_with(REDACTED))
            .then(|| format!("{}{}", part(found, 1), part(found, 2)))
    });
    text = replaced(&FLAG, &text, |found| {
        (is_secret(part(found, 1)) && !part(found, 3).contains(REDACTED))
            .then(|| format!("{}{}", part(found, 1), part(found, 2)))
    });
    plain(&text)
}

/// A text that is no command line: only what has a form that nothing else has.
pub(super) fn plain(text: &str) -> String {
    let text = replaced(&FORMS, text, |_| Some(String::new()));
    let text = match USERINFO.as_ref() {
        Some(userinfo) => userinfo.replace_all(&text, format!("${{1}}{REDACTED}@")).into_owned(),
        None => text,
    };
    match GO_DSN.as_ref() {
        Some(dsn) => dsn.replace_all(&text, format!("{REDACTED}@${{1}}(")).into_owned(),
        None => text,
    }
}

/// Every text in a value: command lines as such, all else by its form.
pub(super) fn value(value: &mut Value) {
    match value {
        Value::String(text) => *text = plain(text),
        Value::Array(items) => items.iter_mut().for_each(self::value),
        Value::Object(map) => {
            for (key, item) in map.iter_mut() {
                match item {
                    Value::Array(args) if key == "cmdline" => {
                        let texts: Vec<String> = args
                            .iter()
                            .map(|arg| arg.as_str().unwrap_or_default().to_owned())
                            .collect();
                        let (texts, _) = command(&texts);
                        *args = texts.into_iter().map(Value::String).collect();
                    }
                    item => self::value(item),
                }
            }
        }
        _ => {}
    }
}

/// Whether something of this name is a secret.
fn is_secret(name: &str) -> bool {
    // `clientSecret` is two words, `APIKey` at least ends as one.
    let mut words: Vec<String> = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && before.is_ascii_lowercase()) {
            words.push(String::new());
        }
        if c.is_ascii_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    words
        .iter()
        .any(|word| WORDS.contains(&word.as_str()) || ENDS.iter().any(|end| word.ends_with(end)))
}

/// An argument that is one assignment to a secret, whatever its value is made of.
fn assignment(arg: &str) -> String {
    let name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    match arg.split_once('=') {
        Some((key, value)) if !value.is_empty() && key.chars().all(name) && is_secret(key) => {
            format!("{key}={REDACTED}")
        }
        _ => arg.to_owned(),
    }
}

/// Whether a script follows: `-c`, `-lc`.
fn takes_script(flag: &str) -> bool {
    flag.starts_with('-') && !flag.starts_with("--") && flag.ends_with('c') && flag.len() <= 5
}

/// The flags that are known of a program.
fn flags_of(arg: &str) -> Option<&'static [&'static str]> {
    let name = arg.rsplit('/').next().unwrap_or(arg);
    let known = |program: &str| {
        name == program
            || (matches!(program, "mysql" | "mariadb" | "mongo") && name.starts_with(program))
    };
    FLAGS.iter().find(|(program, _)| known(program)).map(|(_, flags)| *flags)
}

/// A short flag with its value written to it: `-psecret`.
fn attached(arg: &str, flags: &[&str]) -> Option<String> {
    let mut short = flags.iter().filter(|flag| flag.len() == 2 && arg.len() > 2);
    let flag = short.find(|flag| arg.starts_with(**flag))?;
    Some(format!("{flag}{REDACTED}"))
}

/// Each match, replaced by what `keep` keeps of it and the sign that something was there; `None` leaves it.
fn replaced(
    regex: &LazyLock<Option<Regex>>,
    text: &str,
    keep: impl Fn(&Captures<'_>) -> Option<String>,
) -> String {
    // They are constants, and a test holds that each can be read.
    let Some(regex) = regex.as_ref() else { return REDACTED.to_owned() };
    let replace = |found: &Captures<'_>| match keep(found) {
        Some(kept) => kept + REDACTED,
        None => part(found, 0).to_owned(),
    };
    regex.replace_all(text, replace).into_owned()
}

fn part<'a>(found: &'a Captures<'_>, n: usize) -> &'a str {
    found.get(n).map_or("", |part| part.as_str())
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
