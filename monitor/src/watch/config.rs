//! What a user may set of the watch.

use serde::{Deserialize, Serialize};

use super::near::Bounds;
use crate::config::{Count, Period};
use crate::death::Workload;

/// How memory is followed, and when a cgroup counts as near its limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// Whether cgroups are followed. If not, records lack the minutes before, and nothing warns.
    pub enabled: bool,
    /// Cgroups that are followed: those of containers, pods and units, and those with a limit. About 2.5 KiB each.
    pub max: Count<16, 2_048, 65_536>,
    /// How often one with a limit is looked at while it is quiet; less often, every 5 s at least, from 512 MiB of room below its limit on. Near the limit or while it grows fast it is looked at more often.
    pub interval: Period<250, 1_000, 60_000>,
    /// From which share of its limit on a cgroup is near it, in percent. What the kernel can take back does not count.
    pub near_limit_percent: Count<10, 85, 99>,
    /// A cgroup that grows in a straight line is near its limit when it would meet it within this time.
    pub horizon: Period<1_000, 30_000, 600_000>,
    /// Other shares for some namespaces or units: each `namespace`, `unit` or both, and `percent`. The first that fits counts. At most [`WatchConfig::MAX_RULES`].
    pub near_limit: Vec<NearRule>,
}

impl WatchConfig {
    /// More rules are refused: each is looked at for each cgroup.
    pub const MAX_RULES: usize = 100;
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            max: Count::default(),
            interval: Period::default(),
            near_limit_percent: Count::default(),
            horizon: Period::default(),
            near_limit: Vec::new(),
        }
    }
}

/// A share for some namespaces or units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NearRule {
    /// The Kubernetes namespace, whole.
    pub namespace: Option<String>,
    /// The systemd unit, whole, such as `nginx.service`.
    pub unit: Option<String>,
    /// The share, in percent.
    pub percent: Count<10, 85, 99>,
}

impl NearRule {
    /// Whether it says of whom it speaks.
    ///
    /// # Errors
    /// If it names neither, or nothing.
    pub fn check(&self) -> Result<(), String> {
        let named = [&self.namespace, &self.unit].into_iter().flatten();
        match named.map(|name| name.is_empty()).reduce(|a, b| a || b) {
            None => Err("must name a namespace or a unit".to_owned()),
            Some(true) => Err("an empty namespace or unit fits nothing".to_owned()),
            Some(false) => Ok(()),
        }
    }

    fn fits(&self, workload: &Workload) -> bool {
        let is = |wanted: &Option<String>, own: &Option<String>| wanted.is_none() || wanted == own;
        is(&self.namespace, &workload.namespace) && is(&self.unit, &workload.unit)
    }
}

impl WatchConfig {
    /// When a workload is near its limit.
    pub(super) fn bounds(&self, workload: Option<&Workload>) -> Bounds {
        let rule = workload.and_then(|own| self.near_limit.iter().find(|rule| rule.fits(own)));
        let percent = rule.map_or(self.near_limit_percent.get(), |rule| rule.percent.get());
        let percent = u32::try_from(percent).unwrap_or(100);
        Bounds { enter: f64::from(percent) / 100.0, horizon: self.horizon.get().as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rule = |namespace: Option<&str>, unit: Option<&str>, percent: &str| NearRule {
            namespace: namespace.map(str::to_owned),
            unit: unit.map(str::to_owned),
            percent: percent.parse().unwrap(),
        };
        let config = WatchConfig {
            near_limit: vec![
                rule(Some("shop"), None, "95"),
                rule(None, Some("db.service"), "70"),
                rule(Some("shop"), None, "50"),
            ],
            ..WatchConfig::default()
        };
        let enter = |namespace: Option<&str>, unit: Option<&str>| {
            let own = Workload {
                namespace: namespace.map(str::to_owned),
                unit: unit.map(str::to_owned),
                ..Workload::default()
            };
            config.bounds(Some(&own)).enter
        };
        assert_eq!(enter(Some("shop"), Some("db.service")), 0.95);
        assert_eq!(enter(None, Some("db.service")), 0.7);
        assert_eq!(enter(Some("other"), None), 0.85);
        assert_eq!(config.bounds(None).enter, 0.85);
        assert!(rule(None, None, "50").check().is_err());
        assert!(rule(Some(""), None, "50").check().is_err());
        assert!(rule(Some("a"), None, "50").check().is_ok());
    }
}
