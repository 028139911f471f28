//! Where the API is and by which credentials it is asked.
//!
//! Everything is read anew after each failure and once a minute, so that a token, a certificate or a kubeconfig that was replaced is taken up.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};

use super::KubernetesConfig;

/// Where a pod finds its service account's token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// A kubeconfig that is longer is not read.
const MAX_KUBECONFIG: u64 = 1 << 20;
/// Nor is more of a token's file.
const MAX_TOKEN: u64 = 64 << 10;

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// A kubeconfig.
    Kubeconfig(PathBuf),
    /// The service account of the daemon's own pod.
    ServiceAccount,
}

impl Access {
    /// The first that there is: what the user set, the service account, `KUBECONFIG`. What the user set need not be there yet.
    pub(crate) fn find(config: &KubernetesConfig) -> Option<Self> {
        Self::find_in(config, |name| std::env::var_os(name), Path::new(TOKEN))
    }

    fn find_in(
        config: &KubernetesConfig,
        env: impl Fn(&str) -> Option<OsString>,
        token: &Path,
    ) -> Option<Self> {
        if let Some(path) = &config.kubeconfig {
            return Some(Self::Kubeconfig(path.to_path_buf()));
        }
        if env("KUBERNETES_SERVICE_HOST").is_some() && token.exists() {
            return Some(Self::ServiceAccount);
        }
        // A list of several would have to be merged; the first is the one that matters.
        let list = env("KUBECONFIG")?;
        let first = std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty());
        first.map(Self::Kubeconfig)
    }

    /// Reads the credentials.
    ///
    /// # Errors
    /// Says what is wrong with them and what to do.
    pub(crate) async fn load(&self) -> Result<kube::Config, String> {
        let mut config = match self {
            Self::ServiceAccount => kube::Config::incluster_env()
                .map_err(|error| format!("the service account: {error}"))?,
            Self::Kubeconfig(path) => {
                kubeconfig(path).await.map_err(|why| format!("{}: {why}", path.display()))?
            }
        };
        // kube takes the file as it is, an editor's newline included, and then sends nothing.
        if let Some(path) = &config.auth_info.token_file {
            let token = token(Path::new(path)).map_err(|why| format!("{path}: {why}"))?;
            config.auth_info.token = Some(token.into());
        }
        Ok(config)
    }
}

fn token(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    is_small(path, MAX_TOKEN)?;
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_TOKEN).read_to_string(&mut text).map_err(|error| error.to_string())?;
    match text.trim() {
        "" => Err("holds no token".to_owned()),
        token => Ok(token.to_owned()),
    }
}

/// Refuses what would block or fill memory as it is read.
fn is_small(path: &Path, bytes: u64) -> Result<(), String> {
    let file = fs::metadata(path).map_err(|error| error.to_string())?;
    if file.is_file() && file.len() <= bytes {
        return Ok(());
    }
    Err(format!("not a file of at most {bytes} bytes"))
}

async fn kubeconfig(path: &Path) -> Result<kube::Config, String> {
    is_small(path, MAX_KUBECONFIG)?;
    let read = Kubeconfig::read_from(path).map_err(|error| error.to_string())?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(read, &options).await;
    let config = config.map_err(|error| error.to_string())?;
    // The daemon is root and runs no other's program; nor can the time and the output of one be bounded here.
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        return Err("its user has `exec` or `auth-provider`, which is not run here: give it a `token`, a `tokenFile` or a client certificate".to_owned());
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_credentials_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        let set = KubernetesConfig {
            kubeconfig: Some("/etc/k".parse().unwrap()),
            ..KubernetesConfig::default()
        };
        let unset = KubernetesConfig::default();
        let all = |name: &str| {
            Some(OsString::from(if name == "KUBECONFIG" { ":/a:/b" } else { "10.0.0.1" }))
        };
        let kubeconfig = |path: &str| Some(Access::Kubeconfig(path.into()));
        assert_eq!(Access::find_in(&unset, |_| None, &token), None);
        assert_eq!(Access::find_in(&unset, all, &token), kubeconfig("/a"));
        fs::write(&token, "t").unwrap();
        assert_eq!(Access::find_in(&unset, all, &token), Some(Access::ServiceAccount));
        // A token alone says nothing of where the API is.
        assert_eq!(Access::find_in(&unset, |_| None, &token), None);
        assert_eq!(Access::find_in(&set, all, &token), kubeconfig("/etc/k"));
        assert_eq!(Access::find_in(&unset, |_| Some(":".into()), Path::new("/none")), None);
    }

    #[tokio::test]
    async fn credentials_that_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let access = Access::Kubeconfig(path.clone());
        let load = async || access.load().await.map(|_| ()).unwrap_err();
        assert!(load().await.contains("No such file"));
        let of = |user: &str| {
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                 clusters: [{{name: k, cluster: {{server: 'http://127.0.0.1:1'}}}}]\n\
                 contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
                 users: [{{name: u, user: {user}}}]\n"
            )
        };
        let ran = dir.path().join("ran");
        let exec = format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: touch, args: ['{}'], interactiveMode: Never}}}}",
            ran.display()
        );
        fs::write(&path, of(&exec)).unwrap();
        assert!(load().await.contains("not run here"));
        assert!(!ran.exists());
        for nonsense in ["", "[]", "clusters: 7", "\u{0}", "current-context: c\n"] {
            fs::write(&path, nonsense).unwrap();
            assert!(!load().await.is_empty(), "{nonsense:?}");
        }
        fs::write(&path, of("{token: t}")).unwrap();
        assert_eq!(access.load().await.unwrap().cluster_url, "http://127.0.0.1:1/");
        fs::write(&path, "#".repeat(1 + usize::try_from(MAX_KUBECONFIG).unwrap())).unwrap();
        assert!(load().await.contains("at most"));
    }
}
