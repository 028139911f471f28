//! Who may look: the file of `web.config_file`, in the format of Prometheus' exporter-toolkit, guards the addresses of `web.listen_address`. The socket for
//! workers has rules of its own.
//!
//! * The file, and the files that it names, are looked at when somebody connects or asks, once a second at most, and read anew when one has changed.
//!   What cannot be read then changes nothing: the rules from before stay in force, and log, metric and status say so.
//! * Everything is guarded, health and metrics too, as the toolkit does it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::AbsolutePath;
use crate::metrics::Metrics;

pub mod file;
mod host;
pub mod layer;
mod login;
#[cfg(test)]
mod tests;
mod tls;

pub use file::WebFileError;
use file::{ClientAuth, WebFile};
use login::Login;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What is asked of whoever connects.
#[derive(Debug, Default)]
pub struct Rules {
    /// How TLS is spoken; without it plain HTTP is.
    pub(super) tls: Option<Arc<rustls::ServerConfig>>,
    client_auth: ClientAuth,
    login: Option<Login>,
    headers: axum::http::HeaderMap,
    /// The files that were read.
    files: Vec<PathBuf>,
}

impl Rules {
    /// Reads the file and those that it names. May block.
    ///
    /// # Errors
    /// One line that names file and key.
    pub fn read(path: &Path) -> Result<Self, WebFileError> {
        let file = file::read(path)?;
        Self::of(path, &file).map_err(|problem| WebFileError { path: path.to_owned(), problem })
    }

    fn of(path: &Path, file: &WebFile) -> Result<Self, String> {
        let mut files = vec![path.to_owned()];
        let tls = match &file.tls_server_config {
            None => None,
            Some(section) => {
                let directory = path.parent().unwrap_or(Path::new("/"));
                let section = section.clone().beside(directory);
                files.extend(section.files().map(Path::to_owned));
                Some((tls::config(&section)?, section.client_auth_type))
            }
        };
        let client_auth = tls.as_ref().map_or_else(ClientAuth::default, |(_, auth)| *auth);
        Ok(Self {
            tls: tls.map(|(config, _)| Arc::new(config)),
            client_auth,
            login: Login::new(&file.basic_auth_users)?,
            headers: file.http_server_config.headers()?,
            files,
        })
    }
}

/// By what a change of the files is seen: time, length, device and inode of each. One that is not there has none.
type Signature = Vec<Option<(i64, i64, u64, u64, u64)>>;

fn signature(files: &[PathBuf]) -> Signature {
    let of = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.mtime(), file.mtime_nsec(), file.len(), file.dev(), file.ino()))
    };
    files.iter().map(of).collect()
}

/// The rules in force.
#[derive(Debug)]
pub struct Guard {
    /// `None` if nothing is asked of anybody.
    path: Option<PathBuf>,
    held: Mutex<Held>,
    metrics: Arc<Metrics>,
    /// Names by which this host is called.
    names: Vec<String>,
}

#[derive(Debug)]
struct Held {
    rules: Arc<Rules>,
    signature: Signature,
    looked: Instant,
    /// Why the files as they are now are not in force.
    failed: Option<String>,
}

/// The guard, as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuardReport {
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_file: Option<String>,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Whether a certificate is asked of clients.
    pub client_auth_type: ClientAuth,
    /// How many may log in; none needs to if there are none.
    pub users: usize,
    /// Why the file as it is now is not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Guard {
    /// The rules of a file, or none. May block.
    ///
    /// # Errors
    /// If the file cannot be used: the daemon does not start unguarded.
    pub fn open(
        file: Option<&AbsolutePath>,
        node: &str,
        metrics: Arc<Metrics>,
    ) -> Result<Self, WebFileError> {
        let path = file.map(|path| path.to_path_buf());
        let rules = path.as_deref().map(Rules::read).transpose()?.unwrap_or_default();
        let held = Held {
            signature: signature(&rules.files),
            rules: Arc::new(rules),
            looked: Instant::now(),
            failed: None,
        };
        metrics.set_web_config(true);
        let uname = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        let names = vec![node.to_ascii_lowercase(), uname];
        Ok(Self { path, held: Mutex::new(held), metrics, names })
    }

    /// One that asks nothing of anybody.
    #[cfg(test)]
    pub(crate) fn of_nobody() -> Self {
        let metrics = Arc::new(Metrics::new(crate::metrics::MetricsConfig::default()));
        Self::open(None, "node-1", metrics).unwrap()
    }

    /// The rules in force, after a look at the files if one is due.
    pub async fn rules(self: &Arc<Self>) -> Arc<Rules> {
        let due = {
            let mut held = self.held();
            let due = self.path.is_some() && held.looked.elapsed() >= LOOK;
            if due {
                held.looked = Instant::now();
            }
            due
        };
        if due {
            let guard = Arc::clone(self);
            // If the daemon ends, the rules stay what they are.
            let _ = tokio::task::spawn_blocking(move || guard.look()).await;
        }
        Arc::clone(&self.held().rules)
    }

    /// Looks at the files. May block.
    fn look(&self) {
        let Some(path) = &self.path else { return };
        let (files, before, failed) = {
            let held = self.held();
            (held.rules.files.clone(), held.signature.clone(), held.failed.clone())
        };
        let now = signature(&files);
        if now == before && failed.is_none() {
            return;
        }
        match Rules::read(path) {
            Ok(rules) => {
                let mut held = self.held();
                held.signature = if rules.files == files { now } else { signature(&rules.files) };
                held.rules = Arc::new(rules);
                held.failed = None;
                self.metrics.set_web_config(true);
                tracing::info!(file = %path.display(), "web.config_file was read anew");
            }
            Err(error) => {
                let why = crate::text::one_line(&error.to_string());
                let mut held = self.held();
                if held.failed.as_ref() != Some(&why) {
                    tracing::error!(%why, "web.config_file cannot be used as it is now: the rules from before stay in force");
                    held.failed = Some(why);
                }
                self.metrics.set_web_config(false);
            }
        }
    }

    /// What the status shows.
    #[must_use]
    pub fn report(&self) -> GuardReport {
        let held = self.held();
        GuardReport {
            config_file: self.path.as_ref().map(|path| path.display().to_string()),
            tls: held.rules.tls.is_some(),
            client_auth_type: held.rules.client_auth,
            users: held.rules.login.as_ref().map_or(0, Login::users),
            failed: held.failed.clone(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
