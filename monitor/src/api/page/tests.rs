//! The pages as a browser gets them: what they say, and that no text of a stranger is anything but text.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::super::{Guard, Sight, State, Status, TelemetryPath, router};
use super::POLICY;
use crate::cli::doctor::Finding;
use crate::death::{Cause, Death, Role, sample};
use crate::ledger::{Ledger, LedgerConfig};
use crate::metrics::{Metrics, MetricsConfig};
use crate::notify::Links;
use crate::probe::{ProbeReport, ProbeState};
use crate::source::Kind;

mod corpus;

fn state() -> Arc<State> {
    let template = |text: &str| Some(text.parse().unwrap());
    let status = Status::new("node-1".into(), Some("boot".into()));
    let probe = |name: &str, state, required| ProbeReport {
        name: name.into(),
        hook: format!("tp_btf/oom/{name}"),
        purpose: "kills by the OOM killer".into(),
        required,
        state,
        why: (state != ProbeState::Attached).then(|| "no <i>kprobes</i> here".into()),
    };
    status.set_sight(Sight {
        source: Some(Kind::Bpf),
        probes: vec![
            probe("mark_victim", ProbeState::Attached, true),
            probe("oom_kill_process", ProbeState::Unsupported, false),
        ],
        lacks: Vec::new(),
    });
    status.set_findings(vec![Finding::lacks(
        "NUMA balancing is on",
        "sysctl kernel.numa_balancing=0",
    )]);
    Arc::new(State {
        ledger: Arc::new(Ledger::new(LedgerConfig::default())),
        metrics: Arc::new(Metrics::new(MetricsConfig::default())),
        status: Arc::new(status),
        links: Links {
            runbook_url: template("https://runbooks.example/{cause}"),
            dashboard_url: template("https://grafana.example/d/k?var-pod={pod}"),
        },
        deaths: true,
        watch: None,
    })
}

async fn get(state: &Arc<State>, path: &str) -> (u16, HeaderMap, String) {
    let router = router(Arc::clone(state), &TelemetryPath::default(), Arc::new(Guard::of_nobody()));
    let request = Request::get(path).body(Body::empty()).unwrap();
    let (head, body) = router.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    (head.status.as_u16(), head.headers, String::from_utf8(body).unwrap())
}

async fn page(state: &Arc<State>, path: &str) -> String {
    let (status, headers, page) = get(state, path).await;
    assert_eq!(status, 200, "{path}: {page}");
    assert_eq!(headers["content-security-policy"], POLICY, "{path}");
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(
        (&headers["x-content-type-options"], &headers["referrer-policy"]),
        (&"nosniff".parse().unwrap(), &"no-referrer".parse().unwrap())
    );
    page
}

fn with_pid(pid: u32) -> Death {
    let mut death = sample::in_a_pod();
    (death.victim.pid, death.id) = (pid, uuid::Uuid::from_u128(u128::from(pid)));
    death
}

/// A line for each element.
fn lines(page: &str) -> String {
    page.replace("><", ">\n<") + "\n"
}

#[tokio::test]
async fn how_the_pages_read() {
    let state = state();
    let death = sample::memory::leak();
    let id = death.id;
    state.ledger.append(death).unwrap();
    state.ledger.append(sample::hostile()).unwrap();
    let run = state.status.run().to_string();
    for (name, path) in
        [("list", "/?cause=oom_memcg"), ("death", &format!("/deaths/{id}")), ("host", "/host")]
    {
        let html = page(&state, path).await.replace(&run, "RUN");
        let html = html.replace(env!("CARGO_PKG_VERSION"), "VERSION");
        crate::golden::check_named(&format!("page/{name}.html"), &lines(&html));
    }
}

#[tokio::test]
async fn the_list_is_filtered_and_its_pages_tile() {
    let state = state();
    for pid in 1..=120 {
        let mut death = with_pid(pid);
        if pid % 2 == 0 {
            death.cause = Cause::Crash;
        }
        state.ledger.append(death).unwrap();
    }
    let rows = |page: &str| -> Vec<u32> {
        let rows = page.split("<tr id=\"death-").skip(1);
        rows.map(|row| u32::from_str_radix(&row[28..36], 16).unwrap()).collect()
    };
    let older = |page: &str| {
        let link = page.split("rel=\"next\" href=\"").nth(1)?.split('"').next()?;
        Some(link.replace("&amp;", "&"))
    };
    let (mut path, mut seen) = ("/?cause=crash&limit=25&since=&job=".to_owned(), Vec::new());
    loop {
        let html = page(&state, &path).await;
        assert_eq!(
            html.contains("data-feed"),
            seen.is_empty(),
            "only the newest page is kept up to date"
        );
        seen.extend(rows(&html));
        match older(&html) {
            Some(next) => path = next,
            None => break,
        }
    }
    assert_eq!(seen, (1..=60).rev().map(|n| n * 2).collect::<Vec<_>>());
    assert_eq!(rows(&page(&state, "/").await).len(), 50);
    assert_eq!(rows(&page(&state, "/?limit=200").await).len(), 120);
    assert_eq!(rows(&page(&state, "/?pid=7").await), [7]);
    let none = page(&state, "/?job=nobody").await;
    assert!(rows(&none).is_empty() && none.contains("None."));
}

#[tokio::test]
async fn what_is_not_allowed_is_said_beside_the_form() {
    let state = state();
    for (query, word) in [
        ("since=yesterday", "since: &quot;yesterday&quot; is not allowed"),
        ("limit=201", "limit: must be"),
        ("jobs=1", "no such parameter"),
        ("after=5", "after: is for /api/v1/deaths"),
        ("%ff=1", "no such parameter"),
        ("pid=%3Cscript%3E", "pid: &quot;&lt;script&gt;&quot; is not allowed"),
    ] {
        let (status, headers, html) = get(&state, &format!("/?{query}")).await;
        assert_eq!(
            (status, &headers["content-security-policy"]),
            (400, &POLICY.parse().unwrap()),
            "{query}"
        );
        assert!(html.contains(word) && html.contains("role=\"alert\""), "{query}: {html}");
        assert!(!html.contains("<script>"), "{query}");
    }
    for (path, status) in
        [("/deaths/x", 404), ("/deaths/00000000-0000-0000-0000-00000000ffff", 404)]
    {
        let (found, headers, html) = get(&state, path).await;
        assert_eq!(
            (found, &headers["content-security-policy"]),
            (status, &POLICY.parse().unwrap())
        );
        assert!(html.contains("All deaths"), "{html}");
    }
}

#[tokio::test]
async fn what_hangs_together_is_linked() {
    let state = state();
    let (mut first, mut second, mut elsewhere) = (with_pid(1), with_pid(2), with_pid(3));
    for death in [&mut first, &mut second] {
        death.oom.as_mut().unwrap().group = true;
    }
    elsewhere.boot_id = Some("another boot".into());
    let mut relayed = sample::relayed();
    relayed.id = uuid::Uuid::from_u128(4);
    let related = relayed.related.as_mut().unwrap();
    (related.id, related.role) = (Some(first.id), Role::Child);
    for death in [&first, &second, &elsewhere, &relayed] {
        state.ledger.append(death.clone()).unwrap();
    }
    let html = page(&state, &format!("/deaths/{}", first.id)).await;
    let link = |id: uuid::Uuid| format!("href=\"/deaths/{id}\"");
    let (group, rest) = html.split_once("Deaths that follow from this one").unwrap();
    assert!(group.contains("Killed by the same decision") && group.contains(&link(second.id)));
    assert!(rest.contains(&link(relayed.id)));
    assert!(!html.contains(&link(elsewhere.id)) && !html.contains(&link(first.id)), "{html}");
    let html = page(&state, &format!("/deaths/{}", relayed.id)).await;
    assert!(html.contains("follows from that of its child") && html.contains(&link(first.id)));
}

#[tokio::test]
async fn without_deaths_nothing_of_them_is_shown() {
    let state = Arc::new(State { deaths: false, ..Arc::into_inner(state()).unwrap() });
    let death = sample::in_a_pod();
    let id = death.id;
    state.ledger.append(death).unwrap();
    for path in [
        "/api/v1/deaths",
        "/api/v1/deaths?pid=4242",
        &format!("/api/v1/deaths/{id}"),
        &format!("/deaths/{id}"),
    ] {
        let (status, _, body) = get(&state, path).await;
        assert_eq!(status, 403, "{path}");
        assert!(body.contains("deaths are not shown here (web.deaths is false)"), "{path}: {body}");
    }
    for path in ["/", "/host", "/-/healthy", "/-/ready", "/metrics", "/api/v1/status"] {
        let (status, _, body) = get(&state, path).await;
        assert_eq!(status, 200, "{path}");
        assert!(!body.contains("render-42") && !body.contains("\"missed\""), "{path}: {body}");
    }
}

#[tokio::test]
async fn each_link_leads_somewhere_and_none_elsewhere_by_itself() {
    let state = state();
    state.ledger.append(sample::in_a_pod()).unwrap();
    let id = sample::in_a_pod().id;
    for path in ["/", &format!("/deaths/{id}"), "/host"] {
        let html = page(&state, path).await;
        // What the browser loads without being asked.
        for loaded in html.split("src=\"").skip(1).chain(
            html.split("<link rel=\"").skip(1).filter_map(|rest| rest.split("href=\"").nth(1)),
        ) {
            assert!(loaded.starts_with("/assets/"), "{loaded}");
        }
        assert!(
            !html.contains("style=") && !html.contains("<style") && !html.contains("javascript:")
        );
        for link in html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            let link = link.replace("&amp;", "&");
            let outside = link.starts_with("https://runbooks.example/")
                || link.starts_with("https://grafana.example/");
            if !outside && !link.starts_with('#') {
                assert_eq!(get(&state, &link).await.0, 200, "{link} on {path}");
            }
        }
    }
}
