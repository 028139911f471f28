//! What a cgroup path says, and which rule makes which job of it and of what else is given: for whoever writes rules.
//!
//! Every text may be a stranger's, so each is escaped to stay on its line.

use std::collections::BTreeMap;

use crate::attribute::jobs::Tried;
use crate::attribute::path::{self, Container};
use crate::attribute::{Clues, Rules};
use crate::death::Job;
use crate::text::one_line;

/// What is to be explained.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) path: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) environ: BTreeMap<String, String>,
    pub(super) tags: BTreeMap<String, String>,
}

/// The explanation, a line each.
pub(super) fn explain(given: &Given, rules: &Rules) -> String {
    let clues = Clues {
        tags: &given.tags,
        labels: &given.labels,
        annotations: &given.annotations,
        path: Some(&given.path),
        environ: &given.environ,
    };
    let mut lines = vec![format!("path: {}", one_line(&given.path))];
    lines.extend(of_path(&given.path));
    let tried = rules.tried(&clues);
    lines.push(format!(
        "rules that say something, of {} in this order: {}",
        rules.count(),
        tried.len()
    ));
    lines.extend(tried.iter().map(of_rule));
    lines.extend(of_job(rules.job(&clues).as_ref(), &tried));
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

fn of_path(path: &str) -> Vec<String> {
    let identity = path::identify(path);
    let mut lines = vec![match &identity.container {
        Some(found) => container("container", found),
        None => "container: none, since no pattern matches".to_owned(),
    }];
    let known = [
        ("runtime", identity.container.as_ref().and_then(|found| found.runtime).map(str::to_owned)),
        ("pod_uid", identity.pod_uid),
        ("qos", identity.qos.map(|qos| format!("{qos:?}"))),
        ("unit", identity.unit),
    ];
    let known = known.into_iter();
    lines.extend(known.filter_map(|(key, value)| Some(format!("{key}: {}", one_line(&value?)))));
    let outer = path::containers(path);
    lines.extend(outer.iter().skip(1).map(|outer| container("inside of", outer)));
    lines
}

fn container(what: &str, found: &Container) -> String {
    format!("{what}: {}, by the pattern \"{}\"", one_line(&found.id()), found.pattern.name)
}

fn of_rule(tried: &Tried<'_>) -> String {
    let whose = if tried.users { "jobs.rules" } else { "built in" };
    let won = if tried.won { "  <- the job" } else { "" };
    let parts = tried.parts.iter();
    let parts: Vec<String> = parts.map(|(key, value, source)| part(key, value, source)).collect();
    format!("  {} ({whose}): {}{won}", tried.rule, parts.join(", "))
}

fn of_job(job: Option<&Job>, tried: &[Tried<'_>]) -> Vec<String> {
    let (Some(job), Some(winner)) = (job, tried.iter().find(|tried| tried.won)) else {
        return vec!["job: none, since no rule finds an id or a name".to_owned()];
    };
    let parts = [
        ("id", &job.id),
        ("name", &job.name),
        ("scheduler", &job.scheduler),
        ("attempt", &job.attempt),
        ("index", &job.index),
    ];
    let told = parts.into_iter().filter_map(|(key, value)| {
        let source = job.sources.get(key)?;
        Some(format!("  {}", part(key, value.as_ref()?, source)))
    });
    std::iter::once(format!("job, by the rule {}:", winner.rule)).chain(told).collect()
}

fn part(key: &str, value: &str, source: &str) -> String {
    format!("{key}={} ({})", one_line(value), one_line(source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;

    const YAML: &str = r"
jobs:
  rules:
    - rule: render_farm
      scheduler: farm
      path: '/farm/(?<name>[^/]+)/frame-(?<index>[0-9]+)(?:/|$)'
      id: [{tag: shot}, {label: farm.example.com/shot}]
      name: [{path: name}]
      index: [{path: index}]
";

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn how_an_explanation_reads() {
        let own = file::parse(YAML.as_bytes()).unwrap().jobs.rules().unwrap();
        let id = "3f2a9c0d1e4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeef";
        let other = id.replace('3', "4");
        let pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9.slice";
        let cases = [
            Given {
                path: format!("{pod}/cri-containerd-{id}.scope"),
                labels: map(&[
                    ("batch.kubernetes.io/job-name", "resize"),
                    ("batch.kubernetes.io/controller-uid", "8a6d2126-e95b-4b71-8c7e-d31028581536"),
                ]),
                environ: map(&[("JOB_ID", "4711"), ("ATTEMPT", "2")]),
                ..Given::default()
            },
            Given {
                path: format!("/docker/{id}/docker/{other}/farm/bug\nhunt/frame-7"),
                labels: map(&[("farm.example.com/shot", "sh\u{1b}[31m010")]),
                environ: map(&[("JOB_NAME", "x\n"), ("ATTEMPT", "3")]),
                ..Given::default()
            },
            Given {
                path: "/system.slice/slurmstepd.scope/sEKNKTV3WPV500/step_0/user/task_0".to_owned(),
                environ: map(&[("SLURM_JOB_ID", "99"), ("SLURM_ARRAY_TASK_ID", "4")]),
                ..Given::default()
            },
            Given {
                path: "/system.slice/worker.service".to_owned(),
                environ: map(&[("JOB_ID", "pool"), ("JOB_NAME", "pool")]),
                tags: map(&[("job_id", "4711")]),
                ..Given::default()
            },
            Given { path: "/a\n/b\\xff\u{85}\u{202e}".to_owned(), ..Given::default() },
        ];
        let text: Vec<String> = cases.iter().map(|given| explain(given, &own)).collect();
        for (text, given) in text.iter().zip(&cases) {
            assert!(!text.replace('\n', "").contains(char::is_control), "{given:?}: {text}");
        }
        crate::golden::check_named("explain.txt", &text.join("\n"));
    }

    /// The blocks of one kind in docs/jobs.md.
    fn blocks(kind: &str) -> Vec<&'static str> {
        let text = include_str!("../../../../docs/jobs.md");
        let blocks = text.split("```").skip(1).step_by(2);
        blocks.filter_map(|block| block.strip_prefix(kind)?.strip_prefix('\n')).collect()
    }

    #[test]
    fn the_examples_of_the_documentation_are_true() {
        let examples: Vec<Rules> = blocks("yaml")
            .into_iter()
            .map(|yaml| file::parse(yaml.as_bytes()).expect(yaml).jobs.rules().unwrap())
            .collect();
        let [orders, farm] = examples.as_slice() else { panic!("{}", examples.len()) };
        let pod = Given {
            labels: map(&[
                ("orders.example.com/id", "77"),
                ("batch.kubernetes.io/job-name", "orders-77"),
            ]),
            ..Given::default()
        };
        let clues = Clues {
            tags: &pod.tags,
            labels: &pod.labels,
            annotations: &pod.annotations,
            path: None,
            environ: &pod.environ,
        };
        let told = serde_json::to_value(orders.job(&clues)).unwrap();
        let [json] = blocks("json")[..] else { panic!("one record") };
        let shown: serde_json::Value = serde_json::from_str(&format!("{{{json}}}")).unwrap();
        assert_eq!(told, shown["job"]);

        let given = Given {
            path: "/farm.slice/shot-sh010/frame-7.scope".to_owned(),
            environ: map(&[("JOB_NAME", "nightly")]),
            ..Given::default()
        };
        let [console] = blocks("console")[..] else { panic!("one call") };
        let (command, answer) = console.split_once('\n').unwrap();
        assert!(command.contains(&given.path));
        assert_eq!(explain(&given, farm), answer);
    }

    #[test]
    fn the_documentation_names_every_scheduler() {
        let text = include_str!("../../../../docs/jobs.md");
        let rules = include_str!("../../attribute/rules.yaml");
        let mut names = rules.lines().filter_map(|line| line.trim().strip_prefix("scheduler: "));
        assert_eq!(names.find(|name| !text.contains(&format!("`{name}`"))), None);
    }
}
