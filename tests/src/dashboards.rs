//! The dashboards of `deploy/grafana/`, read, and their queries as a Prometheus takes them.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Names of the dashboards: of the files, and their uids.
pub const NAMES: &[&str] = &["killwatch-fleet", "killwatch-node", "killwatch-workload"];

/// A panel that shows data.
#[derive(Debug, Clone)]
pub struct Panel {
    /// The dashboard's title.
    pub dashboard: String,
    /// Its title.
    pub title: String,
    /// Its kind, such as `timeseries`.
    pub kind: String,
    /// Its unit.
    pub unit: String,
    /// Where it is: left, top, width, height.
    pub place: [u64; 4],
    /// Queries and legends, with variables.
    pub queries: Vec<(String, String)>,
    /// All of it.
    pub json: Value,
}

/// A dashboard's JSON.
///
/// # Errors
/// When it cannot be read.
pub fn read(name: &str) -> Result<Value> {
    let file = format!("../deploy/grafana/{name}.json");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

/// Its panels, without rows.
///
/// # Errors
/// When one lacks a part.
pub fn panels(dashboard: &Value) -> Result<Vec<Panel>> {
    let all = dashboard["panels"].as_array().context("no panels")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let panel = |json: &Value| {
        let title = text(&json["title"]);
        let place = ["x", "y", "w", "h"].map(|key| json["gridPos"][key].as_u64().unwrap_or(0));
        let targets = json["targets"].as_array().with_context(|| format!("{title}: no targets"))?;
        let query = |target: &Value| (text(&target["expr"]), text(&target["legendFormat"]));
        Ok(Panel {
            dashboard: text(&dashboard["title"]),
            title,
            kind: text(&json["type"]),
            unit: text(&json["fieldConfig"]["defaults"]["unit"]),
            place,
            queries: targets.iter().map(query).collect(),
            json: json.clone(),
        })
    };
    all.iter().filter(|json| json["type"] != "row").map(panel).collect()
}

/// A query with everything chosen, over a range and with a window as Grafana would put them in.
#[must_use]
pub fn filled_in(query: &str, range: &str, window: &str) -> String {
    let mut query = query.replace("$__range", range).replace("$__rate_interval", window);
    for (variable, any) in [
        ("job", ".+"),
        ("instance", ".+"),
        ("job_id", ".*"),
        ("namespace", ".*"),
        ("pod", ".*"),
        ("container", ".*"),
    ] {
        query = query.replace(&format!("\"${variable}\""), &format!("\"{any}\""));
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_variable_is_left() {
        for name in NAMES {
            for panel in panels(&read(name).unwrap()).unwrap() {
                for (query, _) in panel.queries {
                    let filled = filled_in(&query, "1h", "1m");
                    assert!(!filled.contains('$'), "{name}, {}: {filled}", panel.title);
                }
            }
        }
    }
}
