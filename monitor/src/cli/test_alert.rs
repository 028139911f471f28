//! `killwatch test-alert`: tells every sink of a death that never was, and prints what each answered. Filters and groups have no say in it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{EX_USAGE, complain, print};
use crate::clock::Clock;
use crate::config::{Config, Flags};
use crate::death::drill;
use crate::ledger::{Entry, Item};
use crate::metrics::Metrics;
use crate::notify::config::SinkConfig;
use crate::notify::deliver::{Deliver, Failure, Message};
use crate::notify::kind::Context;
use crate::text::one_line;

/// Longest wait for the answer of a sink.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a write to a stuck output may hold up the end.
const ABANDON: Duration = Duration::from_millis(500);

/// Arguments of `killwatch test-alert`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only the sink of this name; `log` is that of --log-sink
    #[arg(long = "sink", value_name = "NAME")]
    sink: Option<String>,

    #[command(flatten)]
    flags: Flags,
}

/// What a sink answered.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: String,
    kind: &'static str,
    answer: Result<(), String>,
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let (config, sinks) = match chosen(args) {
        Ok(chosen) => chosen,
        Err(why) => {
            complain(&why);
            return Ok(ExitCode::from(EX_USAGE));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(tell(&config, sinks));
    runtime.shutdown_timeout(ABANDON);
    print(&table(&rows))?;
    let all = rows.iter().all(|row| row.answer.is_ok());
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(args: &Args) -> Result<(Config, Vec<(String, SinkConfig)>), String> {
    let config = Config::load(&args.flags).map_err(|error| error.to_string())?;
    let mut sinks = config.named_sinks()?;
    let names: Vec<String> = sinks.iter().map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        return Err("no sink is configured: there is nobody to tell".to_owned());
    }
    if let Some(wanted) = &args.sink {
        sinks.retain(|(name, _)| name == wanted);
        if sinks.is_empty() {
            let wanted = one_line(wanted);
            return Err(format!(
                "--sink: there is no sink `{wanted}`; there are {}",
                names.join(", ")
            ));
        }
    }
    Ok((config, sinks))
}

/// Tells all at once: the dead one does not make the others wait.
async fn tell(config: &Config, sinks: Vec<(String, SinkConfig)>) -> Vec<Row> {
    let context = Context {
        node: config.node.as_str().to_owned(),
        links: Arc::new(config.links.clone()),
        kubernetes: config.kubernetes.clone(),
    };
    // Of no daemon: nobody will ask for them.
    let metrics = Metrics::new(config.metrics);
    let death = drill::drill(config.node.as_str(), Clock.now());
    let message = match serde_json::to_vec(&death) {
        Ok(json) => {
            let entry = Entry { seq: 1, item: Item::from(death), json: json.into() };
            Message::Entry(Arc::new(entry))
        }
        // A death always has a JSON form; if not, no sink can be told of it.
        Err(error) => {
            let rows = sinks.into_iter().map(|(name, sink)| Row {
                name,
                kind: sink.kind.key(),
                answer: Err(error.to_string()),
            });
            return rows.collect();
        }
    };
    let mut tasks = Vec::new();
    for (name, sink) in sinks {
        let (context, message) = (context.clone(), message.clone());
        let (kind, series) = (sink.kind.key(), metrics.sink(&name));
        let task = tokio::spawn(async move {
            let mut open = sink.kind.open(&context, &series)?;
            let outcome = timeout(PATIENCE, open.deliver(&[message])).await;
            let outcome = outcome.map_err(|_| format!("no answer within {PATIENCE:?}"))?;
            match outcome.failure {
                None if outcome.accepted == 1 => Ok(()),
                None => Err("it took nothing and did not say why".to_owned()),
                Some(Failure::Refused(why)) => Err(format!("refused for good: {why}")),
                Some(Failure::Later { why, .. }) => Err(why),
                Some(Failure::Gone(why)) => Err(format!("it wants nothing any more: {why}")),
            }
        });
        tasks.push((name, kind, task));
    }
    let mut rows = Vec::new();
    for (name, kind, task) in tasks {
        let answer = task.await.unwrap_or_else(|error| Err(error.to_string()));
        rows.push(Row { name, kind, answer });
    }
    rows
}

fn table(rows: &[Row]) -> String {
    let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).len()).max().unwrap_or(0);
    let (names, kinds) = (width(|row| &row.name).max(4), width(|row| row.kind).max(4));
    let mut text = format!("{:names$}  {:kinds$}  ANSWER\n", "SINK", "KIND");
    for Row { name, kind, answer } in rows {
        let answer = match answer {
            Ok(()) => "accepted".to_owned(),
            Err(why) => format!("failed: {}", one_line(why)),
        };
        text.push_str(&format!("{name:names$}  {kind:kinds$}  {answer}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Line::try_parse_from([&["killwatch"], line].concat()).unwrap().args
    }

    #[tokio::test]
    async fn each_sink_is_told_whatever_it_filters_and_each_answers_for_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (good, yaml) = (dir.path().join("deaths"), dir.path().join("k.yaml"));
        let text = format!(
            "log_sink: none\nnode: node-9\nsinks:\n- {{file: {{path: {}}}, filter: {{causes: [crash]}}, group: 1h}}\n- {{file: {{path: /proc/none/deaths}}, name: bad}}\n",
            good.display()
        );
        std::fs::write(&yaml, text).unwrap();
        let (config, sinks) = chosen(&args(&["--config.file", yaml.to_str().unwrap()])).unwrap();
        let rows = tell(&config, sinks).await;
        assert_eq!((rows[0].name.as_str(), &rows[0].answer), ("file", &Ok(())));
        let why = rows[1].answer.clone().unwrap_err();
        assert!(why.starts_with("cannot open /proc/none/deaths"), "{why}");
        let line = std::fs::read_to_string(&good).unwrap();
        let death: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&death["node"], &death["victim"]["comm"]),
            (&"node-9".into(), &drill::COMM.into())
        );
        assert_eq!(
            table(&rows),
            format!("SINK  KIND  ANSWER\nfile  file  accepted\nbad   file  failed: {why}\n")
        );

        let one = ["--config.file", yaml.to_str().unwrap(), "--sink=bad"];
        assert_eq!(chosen(&args(&one)).unwrap().1.len(), 1);
        let none = chosen(&args(&["--config.file", yaml.to_str().unwrap(), "--sink", "log"]));
        assert_eq!(none.unwrap_err(), "--sink: there is no sink `log`; there are file, bad");
    }

    #[test]
    fn without_a_sink_there_is_nobody_to_tell() {
        let error = chosen(&args(&["--log-sink=none"])).unwrap_err();
        assert_eq!(error, "no sink is configured: there is nobody to tell");
    }
}
