//! The instances of one Alertmanager cluster: all are told, and one that takes it is enough.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::alert::Post;
use crate::notify::deliver::Failure;
use crate::notify::http::reply::Reply;
use crate::notify::http::{Client, HttpConfig, HttpUrl, Request};

/// Once one has it, the others have this long to take it too. Who is slower gets it the next time, and holds up nobody.
const GRACE: Duration = Duration::from_secs(1);

/// The instances.
#[derive(Debug)]
pub(super) struct Instances(Vec<Instance>);

#[derive(Debug)]
struct Instance {
    client: Arc<Client>,
    name: String,
    /// Whether it was warned of.
    failing: bool,
}

impl Instances {
    /// # Errors
    /// If settings do not go together.
    pub(super) fn new(urls: &[HttpUrl], http: &HttpConfig) -> Result<Self, String> {
        let one = |url: &HttpUrl| {
            let client = Arc::new(Client::new(&url.under("/api/v2/alerts"), http)?);
            Ok(Instance { client, name: url.to_string(), failing: false })
        };
        urls.iter().map(one).collect::<Result<_, String>>().map(Self)
    }

    /// Posts the same to all of them.
    ///
    /// # Errors
    /// If none took it. [`Failure::Later`] if one of them may yet.
    pub(super) async fn post(&mut self, alerts: Vec<Post>) -> Result<(), Failure> {
        let body = serde_json::to_vec(&alerts).map_err(|error| {
            Failure::Refused(format!("the alert cannot be written as JSON: {error}"))
        })?;
        let request = Request {
            content_type: "application/json",
            headers: Vec::new(),
            body: Bytes::from(body),
        };
        let mut asked = JoinSet::new();
        for (index, instance) in self.0.iter().enumerate() {
            let (client, request) = (Arc::clone(&instance.client), request.clone());
            asked.spawn(
                async move { (index, client.post(request).await.and_then(Reply::accepted)) },
            );
        }
        let mut answers: Vec<_> = self.0.iter().map(|_| None).collect();
        let mut end = None;
        loop {
            let next = match end {
                None => asked.join_next().await,
                Some(end) => timeout_at(end, asked.join_next()).await.unwrap_or_default(),
            };
            let Some(answer) = next else { break };
            let Ok((index, answer)) = answer else { continue };
            if answer.is_ok() && end.is_none() {
                end = Some(Instant::now() + GRACE);
            }
            if let Some(slot) = answers.get_mut(index) {
                *slot = Some(answer.map(|_| ()));
            }
        }
        self.together(answers)
    }

    /// One outcome from those of each; `None` is one that was not waited for.
    fn together(&mut self, answers: Vec<Option<Result<(), Failure>>>) -> Result<(), Failure> {
        let accepted = answers.iter().any(|answer| matches!(answer, Some(Ok(()))));
        let mut failures = Vec::new();
        for (instance, answer) in self.0.iter_mut().zip(answers) {
            match answer {
                Some(Ok(())) => instance.recovered(),
                Some(Err(failure)) if accepted => instance.failed(why(&failure)),
                Some(Err(failure)) => failures.push(failure),
                None => instance.failed("it is slower than the others"),
            }
        }
        if accepted { Ok(()) } else { Err(joined(failures)) }
    }
}

impl Instance {
    /// While others take the alerts the sink works; only this line says that one of them does not.
    fn failed(&mut self, why: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                instance = self.name,
                why,
                "one of several Alertmanagers does not take alerts; others do"
            );
        }
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!(instance = self.name, "this Alertmanager takes alerts again");
        }
    }
}

/// The failure of all: later if it is for any of them, for no death is to be lost while one is away; gone only if all of them are.
fn joined(failures: Vec<Failure>) -> Failure {
    let whys: Vec<_> = failures.iter().map(why).collect();
    let all = whys.join("; ");
    let rank = |failure: &Failure| match failure {
        Failure::Later { .. } => 2,
        Failure::Refused(_) => 1,
        Failure::Gone(_) => 0,
    };
    let waits = failures.iter().filter_map(|failure| match failure {
        Failure::Later { after, .. } => Some(after.unwrap_or_default()),
        _ => None,
    });
    let after = waits.min().filter(|after| !after.is_zero());
    match failures.iter().map(rank).max() {
        Some(0) => Failure::Gone(all),
        Some(1) => Failure::Refused(all),
        Some(_) => Failure::Later { why: all, after },
        None => Failure::Later { why: "the daemon is stopping".to_owned(), after: None },
    }
}

fn why(failure: &Failure) -> &str {
    match failure {
        Failure::Refused(why) | Failure::Gone(why) | Failure::Later { why, .. } => why,
    }
}
