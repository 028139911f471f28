//! Asks the daemon again and again, on a thread of its own, so that one that is slow never holds up the keys.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::state::News;
use crate::api::Cgroups;
use crate::cli::client::Api;
use crate::cli::deaths::Feed;

/// Cgroups that are asked for.
const CGROUPS: usize = 500;
/// Deaths that are asked for at first.
const DEATHS: usize = 50;

/// Starts to ask. What is heard comes out of the channel, which ends with a signal that ends the program.
///
/// # Errors
/// If there can be no thread.
pub(super) fn start(api: Api, interval: Duration) -> std::io::Result<Receiver<News>> {
    let (send, news) = sync_channel(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("killwatch-top".into()).spawn(move || {
        // Without signals it goes on all the same: they end the program by themselves.
        let _ = runtime.block_on(until_signal(&api, interval, &send));
    })?;
    Ok(news)
}

async fn until_signal(
    api: &Api,
    interval: Duration,
    send: &SyncSender<News>,
) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        () = ask(api, interval, send) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Asks until nobody listens.
async fn ask(api: &Api, interval: Duration, send: &SyncSender<News>) {
    let mut feed = Feed::default();
    loop {
        let deaths = feed.next(api, DEATHS).await.map_err(|error| error.to_string());
        let mut news = News { cgroups: cgroups(api).await, deaths };
        // Deaths come once: they wait for whoever draws, who looks ten times a second.
        while let Err(error) = send.try_send(news) {
            match error {
                TrySendError::Disconnected(_) => return,
                TrySendError::Full(back) => news = back,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(interval).await;
    }
}

/// The cgroups as they are.
///
/// # Errors
/// Why they are not known, in words.
pub(super) async fn cgroups(api: &Api) -> Result<Cgroups, String> {
    let body = match api.get(&format!("/api/v1/cgroups?limit={CGROUPS}")).await {
        Ok(Some(body)) => body,
        Ok(None) => return Err("it does not follow cgroups, or is of another version".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    serde_json::from_slice(&body)
        .map_err(|error| format!("the answer is not one that this killwatch knows: {error}"))
}
