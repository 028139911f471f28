//! Commands of the documents. The rules:
//!
//! * A command is what stands in a block of `sh` or `console` ([`crate::shell`]), or in a piece of code in the text that begins with the program's name.
//! * Of `killwatch`: its subcommand, and each of its flags, is in the real program's help. Of `cargo xtask`: its chore is there.
//! * `killwatch check-config`, `promtool` and `amtool check-config` are run, in the repository, and must succeed. A file of killwatch's configuration that is not there is the
//!   last YAML before the block. What a `console` block shows as the answer is what comes.
//! * YAML that is a configuration of killwatch is checked by `killwatch check-config`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use killwatch_tests::daemon::binary;
use serde_json::Value;

use crate::markdown::{self, Block, Page};
use crate::{rules, shell, tool};

/// The real program. `None`, said loudly, if it was not built and that is allowed.
fn killwatch() -> Option<PathBuf> {
    let program = binary();
    if program.is_file() {
        return Some(program);
    }
    assert!(std::env::var_os("KILLWATCH_REQUIRE_E2E").is_none_or(|v| v != "1"), "no killwatch");
    println!("SKIPPED: {} is not there: cargo xtask build", program.display());
    None
}

/// Words of a help that begin a line, behind two blanks: its commands.
fn listed(help: &str) -> BTreeSet<String> {
    let commands = help.split("Commands:\n").nth(1).unwrap_or_default().split("\n\n").next();
    let lines = commands.unwrap_or_default().lines();
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Flags that a help has.
fn flags(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| {
        line.split([' ', ',', '<']).take_while(|word| word.is_empty() || word.starts_with('-'))
    });
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[test]
fn commands_and_flags_of_killwatch_are_there() {
    let Some(program) = &killwatch() else { return };
    let help = |of: &[&str]| tool::run(program, of.iter().chain(&["--help"]));
    let top = help(&[]);
    let subcommands = listed(&top);
    assert!(subcommands.contains("check-config"), "{subcommands:?}");
    let (mut wrong, mut held) = (Vec::new(), 0);
    for page in markdown::pages() {
        for command in shell::commands(&page) {
            let [name, words @ ..] = command.words.as_slice() else { continue };
            if Path::new(name).file_name().is_none_or(|name| name != "killwatch")
                || words.is_empty()
            {
                continue;
            }
            held += 1;
            let (sub, rest) = match words {
                [sub, rest @ ..] if !sub.starts_with('-') => (sub.as_str(), rest),
                rest => ("", rest),
            };
            if !sub.is_empty() && !subcommands.contains(sub) {
                wrong.push(format!("{}: there is no `killwatch {sub}`", command.at));
                continue;
            }
            let known = flags(&if sub.is_empty() { top.clone() } else { help(&[sub]) });
            let given =
                rest.iter().take_while(|word| *word != "--").filter(|word| word.starts_with('-'));
            let given = given.map(|word| word.split('=').next().unwrap_or(word));
            wrong.extend(
                given
                    .filter(|flag| !known.contains(*flag))
                    .map(|flag| format!("{}: `killwatch {sub}` has no {flag}", command.at)),
            );
        }
    }
    assert!(held > 60, "only {held} commands");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn flags_that_are_named_alone_are_there() {
    let Some(program) = &killwatch() else { return };
    let subcommands = listed(&tool::run(program, ["--help"]));
    let mut known: BTreeSet<String> = subcommands
        .iter()
        .filter(|sub| *sub != "help")
        .flat_map(|sub| flags(&tool::run(program, [sub, "--help"])))
        .collect();
    known.extend(flags(&tool::run(program, ["--help"])));
    let (mut wrong, mut held) = (Vec::new(), 0);
    for page in markdown::pages() {
        for (line, code) in page.spans() {
            // Those with a dot are killwatch's: `--web.listen-address`. Others may be anybody's.
            let flag = code.split(['=', ' ']).next().unwrap_or_default();
            if !flag.starts_with("--") || !flag.contains('.') {
                continue;
            }
            held += 1;
            if !known.contains(flag) {
                wrong.push(format!("{}:{line}: no command has {flag}", page.path));
            }
        }
    }
    assert!(held > 30, "only {held} flags");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn chores_are_there() {
    let source = rules::text("xtask/src/main.rs");
    let (_, commands) = source.split_once("enum Command {").unwrap();
    let commands = commands.split("\n}").next().unwrap_or_default();
    let names = commands
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let mut chores: BTreeSet<String> =
        names.filter_map(|line| line.split(['(', ',']).next()).map(str::to_lowercase).collect();
    chores.insert("help".into());
    assert!(chores.contains("demo"), "{chores:?}");
    let mut wrong = Vec::new();
    for page in markdown::pages() {
        for command in shell::commands(&page) {
            if let [cargo, xtask, chore, ..] = command.words.as_slice()
                && cargo == "cargo"
                && xtask == "xtask"
                && !chores.contains(chore)
            {
                wrong.push(format!("{}: there is no `cargo xtask {chore}`", command.at));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The keys that stand at the beginning of a line of a configuration.
fn sections(program: &Path) -> BTreeSet<String> {
    let shown = tool::run(program, ["check-config", "/dev/null"]);
    let keys = shown.lines().filter_map(|line| line.split_once(": ")).map(|(key, _)| key);
    keys.filter(|key| !key.starts_with('#'))
        .filter_map(|key| key.split('.').next())
        .map(str::to_owned)
        .collect()
}

fn is_configuration(block: &Block, sections: &BTreeSet<String>) -> bool {
    let parsed = serde_saphyr::from_str::<Value>(&block.text);
    let keys = parsed
        .ok()
        .and_then(|value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()));
    block.language == "yaml"
        && keys
            .is_some_and(|keys| !keys.is_empty() && keys.iter().all(|key| sections.contains(key)))
}

#[test]
fn configurations_are_allowed() {
    let Some(program) = &killwatch() else { return };
    let (sections, dir) = (sections(program), tempfile::tempdir().unwrap());
    let mut held = 0;
    for page in markdown::pages() {
        for block in page.blocks.iter().filter(|block| is_configuration(block, &sections)) {
            let file = dir.path().join("killwatch.yaml");
            fs::write(&file, &block.text).unwrap();
            println!("{}:{}", page.path, block.line);
            tool::run(program, ["check-config".as_ref(), file.as_os_str()]);
            held += 1;
        }
    }
    assert!(held > 5, "only {held}");
}

#[test]
fn what_reads_files_only_is_run() {
    let Some(program) = &killwatch() else { return };
    let sections = sections(program);
    let mut held = BTreeSet::new();
    for page in markdown::pages() {
        // How many blocks stand before it, where, the line, and what comes of it.
        let blocks = page.blocks.iter().enumerate();
        let mut lines: Vec<(usize, usize, String, Option<String>)> = blocks
            .flat_map(|(nth, block)| shell::typed(block).into_iter().map(move |t| (nth, t)))
            .map(|(nth, typed)| (nth, typed.at, typed.line, typed.answer))
            .collect();
        // In the text many are only named; those with a file of the repository are whole.
        let spans = page.spans().into_iter().filter(|(_, code)| code.contains(" deploy/"));
        lines.extend(spans.map(|(line, code)| (0, line, code, None)));
        for (nth, line, text, answer) in lines {
            let at = format!("{}:{line}", page.path);
            for command in shell::simple(&text, &at) {
                let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
                let runs = matches!(
                    words.as_slice(),
                    ["killwatch", "check-config", ..]
                        | ["promtool", "check" | "test", ..]
                        | ["amtool", "check-config", ..]
                );
                if !runs || (words[0] != "killwatch" && tool::find(words[0]).is_none()) {
                    continue;
                }
                println!("{at}: {text}");
                held.insert(words[0].to_owned());
                let dir = tempfile::tempdir().unwrap();
                let line = with_files(&text, &words, &page, nth, &sections, dir.path());
                let said = run(program, &line, &at);
                if let Some(answer) = &answer {
                    assert_eq!(&said, answer, "{at}");
                }
            }
        }
    }
    assert!(held.contains("killwatch"), "{held:?}");
    assert!(tool::find("promtool").is_none() || held.contains("promtool"), "{held:?}");
}

/// The line with configuration files that are there: one that a page only names is the last one that the page shows before.
fn with_files(
    line: &str,
    words: &[&str],
    page: &Page,
    nth: usize,
    sections: &BTreeSet<String>,
    dir: &Path,
) -> String {
    let named = words
        .iter()
        .find(|word| words[0] == "killwatch" && (word.ends_with(".yaml") || **word == "FILE"));
    let Some(named) = named.filter(|named| !tool::file(named).exists() || named.starts_with('/'))
    else {
        return line.to_owned();
    };
    let shown = page.blocks[..nth].iter().rfind(|block| is_configuration(block, sections));
    let file = dir.join("shown.yaml");
    // Where a page shows none, any will do.
    fs::write(&file, shown.map_or("", |block| &block.text)).unwrap();
    line.replace(named, file.to_str().unwrap())
}

/// Runs a line in the repository; what it prints.
fn run(program: &Path, line: &str, at: &str) -> String {
    let bin: PathBuf = program.parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path))).unwrap();
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(tool::file(""))
        .env("PATH", path)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{at}: {line}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}
