//! Arguments.

use clap::Parser;
use jiff::Timestamp;

use super::super::{Args, Output};
use crate::death::Cause;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn parse(line: &str) -> Result<Args, String> {
    let words = std::iter::once("deaths").chain(line.split_whitespace());
    Line::try_parse_from(words).map(|line| line.args).map_err(|error| error.to_string())
}

#[test]
fn conditions_are_those_of_the_filter() {
    let line = "--since 2026-01-31T12:00:00Z --until 2026-01-31T13:00:00Z --job j --pod shop/web \
                --container abc --cause crash,oom_memcg --cause abort -n 5 -o wide";
    let args = parse(line).unwrap();
    let question = args.question();
    assert_eq!(question.filter.since, Some("2026-01-31T12:00:00Z".parse().unwrap()));
    assert_eq!(question.filter.until, Some("2026-01-31T13:00:00Z".parse().unwrap()));
    assert_eq!(question.filter.causes, [Cause::Crash, Cause::OomMemcg, Cause::Abort]);
    assert_eq!(
        (question.filter.job.as_deref(), question.filter.pod.as_deref()),
        (Some("j"), Some("shop/web"))
    );
    assert_eq!((question.filter.container.as_deref(), question.limit), (Some("abc"), 5));
    assert_eq!((args.output, args.follow), (Output::Wide, false));
    let before = Timestamp::now();
    let since = parse("--since 3d").unwrap().question().filter.since.unwrap();
    let ago = before.duration_since(since).as_hours();
    assert!((71..=72).contains(&ago), "{ago}");
    assert_eq!(parse("").unwrap().question().limit, 100);
}

#[test]
fn what_is_refused() {
    for (line, part) in [
        ("--since soon", "must be a time such as"),
        ("--since=-2h", "must be a time such as"),
        ("--cause oom", "possible values: oom_memcg, oom_global"),
        ("--cause crash,", "possible values"),
        ("--pod shop/", "must be namespace/name"),
        ("--pod a/b/c", "must be namespace/name"),
        ("-n 0", "from 1 to 1000000"),
        ("-n 1000001", "from 1 to 1000000"),
        ("-f --until 1h", "cannot be used with"),
        ("-f --offline", "cannot be used with"),
        ("-o yaml", "possible values: table, wide, json"),
        ("--ledger.path here", "path of a file that begins with `/`"),
        ("--api https://x", "must be a URL such as"),
    ] {
        let refusal = parse(line).expect_err(line);
        assert!(refusal.contains(part), "{line}: {refusal}");
    }
    assert!(Line::try_parse_from(["deaths", "--job", ""]).is_err());
}

#[test]
fn where_the_file_is() {
    let file = |line: &str| parse(line).unwrap().file().map(|path| path.display().to_string());
    assert_eq!(file("--ledger.path /l").as_deref(), Some("/l"));
    assert_eq!(file("--state.path /s").as_deref(), Some("/s/ledger.redb"));
    assert_eq!(file("--state.path /s --ledger.path auto").as_deref(), Some("/s/ledger.redb"));
    assert_eq!(file("--ledger.path none"), None);
    assert!(!parse("").unwrap().names_file() && !parse("--ledger.path auto").unwrap().names_file());
    assert!(parse("--state.path /s").unwrap().names_file());
}
