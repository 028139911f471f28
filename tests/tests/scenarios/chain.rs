//! The whole way of a page: a real kill, a real daemon, a real Prometheus with the rules that are shipped, a real Alertmanager with the configuration that is
//! shipped, and a receiver, which alone is a mock. Then every panel of the dashboards is asked for its data.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use killwatch_tests::containerd::{Containerd, Pod};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{Daemon, Launch};
use killwatch_tests::dashboards::{self, Panel};
use killwatch_tests::http::escaped;
use killwatch_tests::play;
use killwatch_tests::preview;
use killwatch_tests::receiver::{Answer, Received, Receiver};
use killwatch_tests::served::Served;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::Victim;
use killwatch_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::pods::{hog, source_is};
use crate::{LIMIT, aborts, at_the_gate, kill_by_shell};

pub(crate) const SCENARIOS: &[Scenario] = &[play!(from_a_kill_to_a_page_and_a_dashboard).needs(&[
    Need::NoVm,
    Need::Program("containerd"),
    Need::Program("runc"),
    Need::Program("busybox"),
    Need::Program("prometheus"),
    Need::Program("prometheus-alertmanager"),
])];

/// From one hop to the next. Alertmanager waits for 10 s whether more comes.
const HOP: Duration = Duration::from_secs(40);
const RUNBOOK: &str = "https://killwatch.example/runbook";
const NAMESPACE: &str = "jobs";
const POD: &str = "render-x2k4q";
const JOB: &str = "0e0f1a2b-0000-4000-8000-000000000004";
/// Panels that have no data here, and why.
const WITHOUT_DATA: &[(&str, &str)] = &[];

/// Each with the one before it.
struct Chain {
    receiver: Receiver,
    alertmanager: Served,
    prometheus: Served,
    containerd: Containerd,
    _config: tempfile::TempDir,
}

fn from_a_kill_to_a_page_and_a_dashboard(stage: &mut Stage) -> Result<()> {
    let chain = Chain::start(stage)?;
    let began = now();
    let labels =
        [("batch.kubernetes.io/controller-uid", JOB), ("batch.kubernetes.io/job-name", "render")];
    let pod = chain.containerd.run_pod(POD, NAMESPACE, &labels, &[])?;
    the_first_kill_is_a_page(stage, &chain, &pod)?;
    the_third_is_a_poison_job(stage, &chain, &pod)?;
    others_die(stage)?;
    let _near = comes_near(stage)?;
    has(&chain.prometheus, "killwatch_deaths_total{cause=\"abort\"} >= 2")?;
    has(&chain.prometheus, "killwatch_job_oom_killed_total{job_id=\"nightly-7\"} == 2")?;
    every_panel_has_data(&chain.prometheus, began)
}

impl Chain {
    /// Starts all of it, the daemon in place of the stage's.
    fn start(stage: &mut Stage) -> Result<Self> {
        let receiver = Receiver::up(Answer::Status(200))?;
        let config = shipped("deploy/alertmanager/alertmanager.yml")?;
        let url = receiver.url("");
        let alertmanager =
            Served::alertmanager(&replaced(&config, &[("http://receiver.example:8080", &url)])?)?;
        let containerd = Containerd::start()?;
        let dir = tempfile::TempDir::with_prefix("killwatch-chain-").context("make a directory")?;
        let file = dir.path().join("killwatch.yaml");
        let url = format!("http://{}", alertmanager.address());
        let config = json!({
            "sinks": [{ "alertmanager": { "urls": [url] } }],
            "links": { "runbook_url": format!("{RUNBOOK}#{{cause}}") },
        });
        std::fs::write(&file, config.to_string()).context("write a configuration")?;
        let socket = containerd.socket().into();
        let flags = vec!["--config.file".into(), file.into(), "--containers.cri".into(), socket];
        stage.daemon = Arc::new(Daemon::start_as(Launch { wrapper: vec![], flags })?);
        source_is(&stage.daemon, &["up"])?;
        let rules = root().join("deploy/prometheus").display().to_string();
        let config = replaced(
            &shipped("deploy/prometheus/prometheus.yml")?,
            &[
                ("scrape_interval: 30s", "scrape_interval: 1s"),
                ("evaluation_interval: 30s", "evaluation_interval: 1s"),
                ("127.0.0.1:9093", alertmanager.address()),
                ("127.0.0.1:9435", stage.daemon.address()),
                ("node: node-1", &format!("node: {}", stage.daemon.node())),
                ("- workloads.rules", &format!("- {rules}/workloads.rules")),
                ("- monitor.rules", &format!("- {rules}/monitor.rules")),
            ],
        )?;
        let prometheus = Served::prometheus(&config)?;
        Ok(Self { receiver, alertmanager, prometheus, containerd, _config: dir })
    }

    /// What was posted to this path.
    fn posted(&self, path: &str) -> Vec<Received> {
        let mut all = self.receiver.received();
        all.retain(|request| request.what == format!("POST {path}"));
        all
    }
}

fn the_first_kill_is_a_page(stage: &Stage, chain: &Chain, pod: &Pod) -> Result<()> {
    let (prometheus, alertmanager) = (&chain.prometheus, &chain.alertmanager);
    let (_, init) = hog(&chain.containerd, pod, "worker", 0)?;
    let of_pod = format!("namespace=\"{NAMESPACE}\",pod=\"{POD}\",container=\"worker\"");
    let counted = format!("container_oom_killed_total{{{of_pod}}}");
    has(prometheus, &format!("{counted} == 0")).context("its series is there before its kill")?;

    kill_by_shell("USR1", init.pid, 0)?;
    let record = stage.daemon.death_of(&init)?;
    let recorded = Instant::now();
    ensure!(record["workload"]["pod"] == POD && record["job"]["id"] == JOB, "{record:#}");
    let died = died(&record)?;
    let hop = |name: &str, at: Instant| {
        println!("chain: {:>6} ms after the death  {name}", at.duration_since(died).as_millis());
    };
    hop("the daemon has told the record over its API", recorded);
    has(prometheus, &format!("{counted} == 1"))?;
    hop("Prometheus has scraped it", Instant::now());
    firing(prometheus, "KillwatchContainerOOMKilled")?;
    firing(prometheus, "KillwatchJobOOMKilled")?;
    hop("the rules fire", Instant::now());
    let both = |alerts: &[Value]| {
        let named = |by_sink: bool| {
            alerts.iter().any(|alert| {
                alert["labels"]["alertname"] == "KillwatchContainerOOMKilled"
                    && alert["labels"]["pod"] == POD
                    && alert["labels"]["cause"].is_string() == by_sink
            })
        };
        named(true) && named(false)
    };
    wait_until(HOP, "Alertmanager has both alerts", || {
        let alerts = alertmanager.json("/api/v2/alerts")?;
        Ok(both(alerts.as_array().context("no list")?).then_some(()))
    })?;
    hop("Alertmanager has the rule's alert and the sink's", Instant::now());

    let page = wait_until(HOP, "the page", || {
        let pages = chain.posted("/team");
        Ok(pages.into_iter().find(|page| page.body["groupLabels"]["namespace"] == NAMESPACE))
    })?;
    hop("the receiver has the page", page.at);
    let alerts = page.body["alerts"].as_array().context("no alerts")?;
    ensure!(both(alerts), "{:#}", page.body);
    let runbook = |alert: &Value, anchor: &str| {
        alert["annotations"]["runbook_url"] == format!("{RUNBOOK}#{anchor}")
    };
    let by_sink = |alert: &&Value| alert["labels"]["cause"].is_string();
    let of = |name: &str| {
        let name = name.to_owned();
        move |alert: &&Value| alert["labels"]["alertname"] == name
    };
    let container = of("KillwatchContainerOOMKilled");
    let told =
        alerts.iter().filter(by_sink).find(|alert| container(alert)).context("the sink's")?;
    ensure!(
        told["labels"]["pod"] == POD
            && told["labels"]["job_id"] == JOB
            && told["annotations"]["death_id"] == record["id"]
            && runbook(told, "oom_memcg"),
        "{told:#}"
    );
    let rule = alerts.iter().filter(|alert| !by_sink(alert)).find(|alert| container(alert));
    let rule = rule.context("the rule's")?;
    let described = format!(
        "Pod {NAMESPACE}/{POD} (worker) on {} was hit by the kernel's OOM killer within the last 10 minutes.",
        stage.daemon.node()
    );
    ensure!(
        rule["labels"]["node"] == stage.daemon.node()
            && rule["annotations"]["description"] == described
            && runbook(rule, "killwatchcontaineroomkilled"),
        "{rule:#}"
    );
    let job = alerts.iter().find(of("KillwatchJobOOMKilled")).context("the job's")?;
    ensure!(job["labels"]["job_id"] == JOB && runbook(job, "killwatchjoboomkilled"), "{job:#}");
    exemplar_leads_to(prometheus, &of_pod, &record)?;
    Ok(())
}

/// When it died, by this process's clock.
fn died(record: &Value) -> Result<Instant> {
    let time: Timestamp = record["time"].as_str().context("no time")?.parse()?;
    let ago = Timestamp::now().duration_since(time).unsigned_abs();
    Instant::now().checked_sub(ago).context("it died before this machine began")
}

/// The exemplar of its count is the record.
fn exemplar_leads_to(prometheus: &Served, of_pod: &str, record: &Value) -> Result<()> {
    let (query, to) = (escaped(&format!("container_oom_killed_total{{{of_pod}}}")), now() + 1.0);
    let path = format!("/api/v1/query_exemplars?query={query}&start={}&end={to}", to - 600.0);
    let answer = prometheus.json(&path)?;
    let found = answer["data"].as_array().context("no data")?.iter().any(|series| {
        let exemplars = series["exemplars"].as_array();
        exemplars.is_some_and(|all| all.iter().any(|one| one["labels"]["death_id"] == record["id"]))
    });
    ensure!(found, "no exemplar of {}: {answer}", record["id"]);
    Ok(())
}

fn the_third_is_a_poison_job(stage: &Stage, chain: &Chain, pod: &Pod) -> Result<()> {
    for attempt in 1..3 {
        let (container, init) = hog(&chain.containerd, pod, "worker", attempt)?;
        let id = format!("containerd://{}", container.id);
        has(
            &chain.prometheus,
            &format!("container_oom_killed_total{{container_id=\"{id}\"}} == 0"),
        )?;
        kill_by_shell("USR1", init.pid, 0)?;
        stage.daemon.death_of(&init)?;
    }
    // Scenarios beside this one have poison jobs of their own, and this daemon sees them.
    let ours = |request: &Received| request.body["commonLabels"]["job_id"] == JOB;
    wait_until(HOP, "the scheduler is told of the poison job", || {
        Ok(chain.posted("/poison-jobs").iter().any(ours).then_some(()))
    })?;
    firing(&chain.prometheus, "KillwatchPoisonJob")?;
    wait_until(HOP, "people are told, too", || {
        let pages = chain.posted("/pager");
        let is_it = |page: &Received| {
            page.body["alerts"].as_array().into_iter().flatten().any(|alert| {
                alert["labels"]["alertname"] == "KillwatchPoisonJob"
                    && alert["labels"]["job_id"] == JOB
            })
        };
        Ok(pages.iter().any(is_it).then_some(()))
    })?;
    let muted = |alert: &Value| {
        alert["labels"]["alertname"] == "KillwatchJobOOMKilled"
            && alert["status"]["state"] == "suppressed"
    };
    wait_until(HOP, "what says less is muted", || {
        let alerts = chain.alertmanager.json("/api/v2/alerts")?;
        Ok(alerts.as_array().is_some_and(|all| all.iter().any(muted)).then_some(()))
    })
}

/// Deaths of other kinds, for the dashboards.
fn others_die(stage: &Stage) -> Result<()> {
    for turn in 0..2 {
        let group = stage.tree.limited(&format!("batch{turn}"), LIMIT)?;
        let casting = stage.cast().within(&group).with_env("JOB_ID", "nightly-7");
        let (mut victim, truth) = at_the_gate(&casting.args(["--gate", "hog"]))?;
        victim.go()?;
        victim.reap_killed_by(9)?;
        stage.daemon.death_of(&truth)?;
        let truth: Truth = aborts(stage)?;
        stage.daemon.death_of(&truth)?;
    }
    Ok(())
}

/// A cgroup that is near its limit for as long as the victim is kept.
fn comes_near(stage: &Stage) -> Result<Victim> {
    let group = stage.tree.limited("near", LIMIT)?;
    let act = ["--gate", "hog", "--limit-mib", "29", "--hold"];
    let (mut victim, _) = at_the_gate(&stage.cast().within(&group).args(act))?;
    victim.go()?;
    victim.hear("held")?;
    Ok(victim)
}

/// All panels, asked as Grafana asks. What they show is drawn, if that is asked for.
fn every_panel_has_data(prometheus: &Served, began: f64) -> Result<()> {
    let mut empty = BTreeSet::new();
    let (mut asked, mut all) = (0, Vec::new());
    for name in dashboards::NAMES {
        let dashboard = dashboards::read(name)?;
        let mut drawn = Vec::new();
        for panel in dashboards::panels(&dashboard)? {
            asked += panel.queries.len();
            let excused = WITHOUT_DATA.iter().any(|(title, _)| panel.title == *title);
            let within = if excused { Duration::ZERO } else { HOP };
            let mut data = Vec::new();
            let seen = wait_until(within, &panel.title, || {
                data = data_of(prometheus, &panel, began)?;
                Ok(data.iter().all(|series| !series.is_empty()).then_some(()))
            });
            if seen.is_err() {
                empty.insert(panel.title.clone());
            }
            drawn.push((panel, data));
        }
        all.push((name, dashboard, drawn));
    }
    let excused: BTreeSet<_> = WITHOUT_DATA.iter().map(|(title, _)| (*title).to_owned()).collect();
    ensure!(empty == excused, "without data are {empty:?}, and should be {excused:?}");
    println!("chain: {asked} queries of panels have data");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        let dir = root().join("docs/img");
        std::fs::create_dir_all(&dir).context("make docs/img")?;
        for (name, dashboard, panels) in &all {
            let file = dir.join(format!("dashboard-{}.svg", name.trim_start_matches("killwatch-")));
            std::fs::write(&file, preview::draw(dashboard, panels)).context("write a preview")?;
        }
    }
    Ok(())
}

/// What each query of a panel has.
fn data_of(prometheus: &Served, panel: &Panel, began: f64) -> Result<Vec<Vec<Value>>> {
    let to = now();
    let range = format!("{}s", (to - began).ceil());
    let ask = |(query, _): &(String, String)| {
        // As Grafana has it: a window is a step and one scrape more.
        let step = if panel.json["interval"].is_string() { preview::STEP } else { 1.0 };
        let query = dashboards::filled_in(query, &range, &format!("{}s", step + 1.0));
        match panel.kind.as_str() {
            "stat" | "table" => prometheus.query(&query),
            _ => prometheus.query_range(&query, began, to + step, step),
        }
    };
    panel.queries.iter().map(ask).collect()
}

fn has(prometheus: &Served, query: &str) -> Result<()> {
    wait_until(HOP, query, || Ok((!prometheus.query(query)?.is_empty()).then_some(())))
}

fn firing(prometheus: &Served, alert: &str) -> Result<()> {
    has(prometheus, &format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}"))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn shipped(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

/// Each of these must be there, or what is tested is not what is shipped.
fn replaced(text: &str, changes: &[(&str, &str)]) -> Result<String> {
    changes.iter().try_fold(text.to_owned(), |text, (from, to)| {
        ensure!(text.contains(from), "no {from} in what is shipped");
        Ok(text.replace(from, to))
    })
}
