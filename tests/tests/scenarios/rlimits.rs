//! Limits that a process runs into: RLIMIT_CPU and RLIMIT_FSIZE.

use std::time::Duration;

use anyhow::Result;
use killwatch_tests::corpus::Scenario;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::wait::scaled;

use crate::dies_alone;

pub(crate) const SCENARIOS: &[Scenario] =
    &[play!(cpu_time_soft), play!(cpu_time_hard), play!(file_size)];

/// SIGXCPU at the soft limit. The kernel raises that by a second as it sends it: told is what was hit.
fn cpu_time_soft(stage: &mut Stage) -> Result<()> {
    let truth = dies_alone(stage, &["cpu-limit", "1", "30"], 24)?;
    let expected = Expected::death(&truth, stage.daemon.node()).signal(24, "SIGXCPU");
    stage.holds(&truth, &cpu(expected).is("/rlimit/soft", 1).is("/rlimit/hard", 30)).map(drop)
}

/// SIGKILL at the hard limit: looks like a kill -9.
fn cpu_time_hard(stage: &mut Stage) -> Result<()> {
    let truth = dies_alone(stage, &["cpu-limit", "--ignore", "1", "1"], 9)?;
    let expected = Expected::death(&truth, stage.daemon.node()).signal(9, "SIGKILL");
    stage.holds(&truth, &cpu(expected).is("/rlimit/soft", 1).is("/rlimit/hard", 1)).map(drop)
}

fn cpu(expected: Expected) -> Expected {
    expected
        .by_kernel("rlimit")
        .is("/rlimit/resource", "RLIMIT_CPU")
        .is("/rlimit/unit", "seconds")
        .like("/rlimit/used", "1 s and not much more", |used| {
            let most = 1.0 + scaled(Duration::from_secs(1)).as_secs_f64();
            used.as_f64().is_some_and(|used| (1.0..most).contains(&used))
        })
}

fn file_size(stage: &mut Stage) -> Result<()> {
    let truth = dies_alone(stage, &["file-limit", "4096"], 25)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(25, "SIGXFSZ")
        .by_kernel("rlimit")
        .is("/rlimit/resource", "RLIMIT_FSIZE")
        .is("/rlimit/unit", "bytes")
        .is("/rlimit/soft", 4096)
        .is("/rlimit/hard", 4096);
    stage.holds(&truth, &expected).map(drop)
}
