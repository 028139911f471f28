//! Room: app.

/// Builds it all, runs until told to stop, drains.
///
/// # Errors
/// If the daemon cannot start.
#[expect(clippy::unused_async, reason = "stands in for the pipeline")]
pub async fn run(_config: crate::config::Config) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
