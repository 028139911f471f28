//! Draws the data of a dashboard as SVG: each panel where Grafana would put it, in the roughest likeness. It shows that there is something to show.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::dashboards::Panel;

/// Pixels of a column and of a row of Grafana's grid.
const COLUMN: f64 = 50.0;
const ROW: f64 = 26.0;
/// Between panels, and inside of one.
const GAP: f64 = 4.0;
const INSIDE: f64 = 10.0;
/// For the dashboard's title.
const HEAD: f64 = 40.0;
/// For a panel's title; of a line of text.
const TITLE: f64 = 28.0;
const LINE: f64 = 15.0;
/// Width of a character of the small texts.
const CHARACTER: f64 = 6.2;
/// Series that are drawn and named of one panel.
const MAX_SERIES: usize = 12;
const COLOURS: &[&str] = &[
    "#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#f2495c", "#b877d9", "#8ab8ff", "#ffa6b0",
    "#37872d", "#c0d8ff", "#e0b400", "#a352cc",
];

/// Seconds between two bars.
pub const STEP: f64 = 4.0;

/// Values of a series by time in seconds.
type Points = Vec<(f64, f64)>;

/// The picture of a dashboard: its panels and what each of their queries has.
#[must_use]
pub fn draw(dashboard: &Value, panels: &[(Panel, Vec<Vec<Value>>)]) -> String {
    let all = panels.iter().flat_map(|(panel, data)| named(panel, data)).collect::<Vec<_>>();
    let times = ends(&all);
    let rows = panels.iter().map(|(panel, _)| panel.place[1] + panel.place[3]).max();
    let (width, height) = (24.0 * COLUMN + GAP, number(rows.unwrap_or(0)) * ROW + HEAD + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#111217\"/>\n"
    );
    let title = dashboard["title"].as_str().unwrap_or_default();
    text(&mut svg, (12.0, 26.0), 18, "#e8e8ea", title);
    for row in dashboard["panels"].as_array().into_iter().flatten() {
        if row["type"] == "row" {
            let y = row["gridPos"]["y"].as_u64().map_or(0.0, number) * ROW + HEAD + ROW * 0.7;
            text(&mut svg, (12.0, y), 14, "#ccccdc", row["title"].as_str().unwrap_or_default());
        }
    }
    for (panel, data) in panels {
        let [x, y, w, h] = panel.place.map(number);
        let (x, y) = (x * COLUMN + GAP, y * ROW + HEAD);
        let (w, h) = (w * COLUMN - GAP, h * ROW - GAP);
        let _ = writeln!(
            svg,
            "<g transform=\"translate({x} {y})\"><rect width=\"{w}\" height=\"{h}\" rx=\"2\" fill=\"#181b1f\" stroke=\"#2c2f34\"/>"
        );
        text(&mut svg, (INSIDE, 18.0), 12, "#ccccdc", &cut(&panel.title, w - 2.0 * INSIDE, 7.0));
        match panel.kind.as_str() {
            "stat" => stat(&mut svg, panel, data, (w, h)),
            "table" => table(&mut svg, panel, data, (w, h)),
            "state-timeline" => states(&mut svg, panel, data, times, (w, h)),
            _ => graph(&mut svg, panel, data, times, (w, h)),
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn stat(svg: &mut String, panel: &Panel, data: &[Vec<Value>], (w, h): (f64, f64)) {
    let value = data.first().and_then(|series| series.first()).and_then(now);
    let value = value.map(|value| whole(panel, value));
    let mut shown = value.map_or_else(|| "none".to_owned(), |value| spoken(value, &panel.unit));
    let named = value.and_then(|value| mapped(panel, value));
    if let Some((name, _)) = named {
        shown = name;
    }
    let steps = panel.json["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array();
    let reached = |step: &&Value| step["value"].as_f64().is_none_or(|from| value >= Some(from));
    let colour = steps.and_then(|all| all.iter().rfind(reached)?["color"].as_str());
    let colour = value.and(colour).map_or("#8e8e99", palette);
    let size = 30;
    let (x, y) = (w / 2.0, f64::midpoint(h, TITLE) + 8.0);
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{colour}\" text-anchor=\"middle\">{}</text>",
        escape(&shown)
    );
}

fn table(svg: &mut String, panel: &Panel, data: &[Vec<Value>], (w, h): (f64, f64)) {
    let rows: Vec<_> = data.iter().flatten().collect();
    let mut names: Vec<&str> = Vec::new();
    for labels in rows.iter().filter_map(|row| row["metric"].as_object()) {
        names.extend(labels.keys().map(String::as_str));
    }
    names.sort_unstable();
    names.dedup();
    let order = &panel.json["transformations"][0]["options"]["indexByName"];
    names.sort_by_key(|name| order[name].as_u64());
    let column = (w - 2.0 * INSIDE) / number(names.len() as u64 + 1);
    let cell = |svg: &mut String, at: usize, y: f64, colour: &str, what: &str| {
        let x = INSIDE + number(at as u64) * column;
        text(svg, (x, y), 11, colour, &cut(what, column - 4.0, CHARACTER));
    };
    for (at, name) in names.iter().chain([&"Value"]).enumerate() {
        cell(svg, at, TITLE + LINE, "#6e9fff", name);
    }
    for (line, row) in rows.iter().enumerate() {
        let y = TITLE + LINE * number(line as u64 + 2);
        if y > h {
            break;
        }
        for (at, name) in names.iter().enumerate() {
            cell(svg, at, y, "#ccccdc", row["metric"][name].as_str().unwrap_or_default());
        }
        let value = now(row).map(|value| whole(panel, value));
        let value = value.map_or_else(String::new, |value| spoken(value, "short"));
        cell(svg, names.len(), y, "#ccccdc", &value);
    }
}

fn states(
    svg: &mut String,
    panel: &Panel,
    data: &[Vec<Value>],
    (from, to): (f64, f64),
    (w, h): (f64, f64),
) {
    let series = named(panel, data);
    let left = 170.0;
    let each = ((h - TITLE - INSIDE) / number(series.len().max(1) as u64)).min(24.0);
    for (line, (name, points)) in series.iter().enumerate() {
        let y = TITLE + number(line as u64) * each;
        text(svg, (INSIDE, y + each * 0.7), 11, "#ccccdc", &cut(name, left - 14.0, CHARACTER));
        for (at, value) in points {
            let x = left + (at - from) / (to - from).max(1.0) * (w - left - INSIDE);
            let step = (w - left - INSIDE) / (to - from).max(1.0) + 0.5;
            let x = x.min(w - INSIDE - step);
            let colour = mapped(panel, *value).map_or("#8e8e99", |(_, colour)| colour);
            rect(svg, (x, y + 2.0), (step, each - 4.0), colour);
        }
    }
}

fn graph(
    svg: &mut String,
    panel: &Panel,
    data: &[Vec<Value>],
    (from, to): (f64, f64),
    (w, h): (f64, f64),
) {
    let series = named(panel, data);
    let bars = panel.json["fieldConfig"]["defaults"]["custom"]["drawStyle"] == "bars";
    // Bars stand on each other.
    let mut sums: BTreeMap<i64, f64> = BTreeMap::new();
    let mut top = 0.0_f64;
    for (at, value) in series.iter().flat_map(|(_, points)| points) {
        let sum = sums.entry(second(*at)).or_default();
        *sum = if bars { *sum + value } else { sum.max(*value) };
        top = top.max(*sum);
    }
    let top = if top > 0.0 { top * 1.1 } else { 1.0 };
    let legend = LINE * number(series.len().div_ceil(2).min(3) as u64) + 4.0;
    let (left, bottom) = (54.0, h - legend - INSIDE);
    let x = |at: f64| left + (at - from) / (to - from).max(1.0) * (w - left - 2.0 * INSIDE);
    let y = |value: f64| bottom - value / top * (bottom - TITLE);
    for part in [0.0, 0.5, 1.0] {
        let at = y(top * part);
        rect(svg, (left, at), (w - left - INSIDE, 0.5), "#2c2f34");
        text(svg, (4.0, at + 4.0), 10, "#8e8e99", &spoken(top * part, &panel.unit));
    }
    let mut stood: BTreeMap<i64, f64> = BTreeMap::new();
    for (line, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS.get(line % COLOURS.len()).copied().unwrap_or("#73bf69");
        if bars {
            for (at, value) in points.iter().filter(|(_, value)| *value > 0.0) {
                let stands = stood.entry(second(*at)).or_default();
                let (foot, head) = (y(*stands), y(*stands + value));
                *stands += value;
                let wide = (x(*at + STEP * 0.8) - x(*at)).min(w - INSIDE - x(*at));
                rect(svg, (x(*at), head), (wide, foot - head), colour);
            }
        } else {
            let path: Vec<_> =
                points.iter().map(|(at, v)| format!("{:.1},{:.1}", x(*at), y(*v))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
                path.join(" ")
            );
        }
        let (row, half) = (line / 2, number((line % 2) as u64));
        let at = (left + half * (w - left) / 2.0, bottom + LINE * number(row as u64 + 1));
        if at.1 < h {
            rect(svg, (at.0 - 12.0, at.1 - 7.0), (8.0, 3.0), colour);
            text(svg, at, 10, "#ccccdc", &cut(name, (w - left) / 2.0 - 16.0, CHARACTER));
        }
    }
}

/// Series under the names that their legends give them.
fn named(panel: &Panel, data: &[Vec<Value>]) -> Vec<(String, Points)> {
    let mut all = Vec::new();
    for ((_, legend), series) in panel.queries.iter().zip(data) {
        for one in series {
            let mut name = legend.clone();
            while let Some((before, rest)) = name.split_once("{{") {
                let Some((label, after)) = rest.split_once("}}") else { break };
                let value = one["metric"][label].as_str().unwrap_or_default();
                name = format!("{before}{value}{after}");
            }
            let points = one["values"].as_array().into_iter().flatten().filter_map(point);
            all.push((name.trim().to_owned(), points.collect::<Points>()));
        }
    }
    // What is not 0 first, when not all have room.
    all.sort_by_key(|(_, points)| points.iter().all(|(_, value)| *value == 0.0));
    all.truncate(MAX_SERIES);
    all
}

/// What a value is called, and its colour, where the panel says so.
fn mapped(panel: &Panel, value: f64) -> Option<(String, &'static str)> {
    let mappings = panel.json["fieldConfig"]["defaults"]["mappings"].as_array()?;
    let found = mappings.iter().find_map(|one| one["options"].get(format!("{value}")))?;
    let colour = found["color"].as_str().map_or("#73bf69", palette);
    Some((found["text"].as_str()?.to_owned(), colour))
}

fn palette(name: &str) -> &'static str {
    match name {
        "green" => "#73bf69",
        "red" => "#f2495c",
        "orange" => "#ff9830",
        _ => "#5794f2",
    }
}

fn point(pair: &Value) -> Option<(f64, f64)> {
    Some((pair[0].as_f64()?, pair[1].as_str()?.parse().ok()?))
}

fn now(series: &Value) -> Option<f64> {
    point(&series["value"]).map(|(_, value)| value)
}

fn ends(series: &[(String, Points)]) -> (f64, f64) {
    let times = || series.iter().flat_map(|(_, points)| points).map(|(at, _)| *at);
    (times().fold(f64::INFINITY, f64::min), times().fold(f64::NEG_INFINITY, f64::max))
}

/// As many decimals as the panel wants. `increase()` extrapolates, so kills are counted in fractions.
fn whole(panel: &Panel, value: f64) -> f64 {
    let round = panel.json["fieldConfig"]["defaults"]["decimals"] == 0;
    if round { value.round() } else { value }
}

fn spoken(value: f64, unit: &str) -> String {
    match unit {
        "bytes" if value >= 1024.0 => format!("{:.0} KiB", value / 1024.0),
        "s" => format!("{value:.0} s"),
        _ if value.fract() == 0.0 || value >= 10.0 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

fn cut(what: &str, room: f64, each: f64) -> String {
    let mut kept = String::new();
    let mut wide = 0.0;
    for c in what.chars() {
        wide += each;
        if wide > room {
            kept.pop();
            kept.push('…');
            break;
        }
        kept.push(c);
    }
    kept
}

fn text(svg: &mut String, (x, y): (f64, f64), size: u32, colour: &str, what: &str) {
    let what = escape(what);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{colour}\">{what}</text>"
    );
}

fn rect(svg: &mut String, (x, y): (f64, f64), (w, h): (f64, f64), colour: &str) {
    let (w, h) = (w.max(0.1), h.max(0.1));
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" fill=\"{colour}\"/>"
    );
}

fn escape(what: &str) -> String {
    what.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a picture: places of a grid and seconds of a test"
)]
mod rough {
    pub(super) fn number(value: u64) -> f64 {
        value as f64
    }

    pub(super) fn second(at: f64) -> i64 {
        at as i64
    }
}
use rough::{number, second};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboards;
    use serde_json::json;

    #[test]
    fn hostile_names_stay_text() {
        let name = "</text><script>&\"";
        let series =
            json!({ "metric": { "pod": name }, "value": [1.0, "3"], "values": [[1.0, "3"]] });
        let panels = dashboards::panels(&dashboards::read("killwatch-fleet").unwrap()).unwrap();
        let drawn: Vec<_> = panels
            .into_iter()
            .map(|panel| {
                let data = panel.queries.iter().map(|_| vec![series.clone()]).collect();
                (panel, data)
            })
            .collect();
        let svg = draw(&dashboards::read("killwatch-fleet").unwrap(), &drawn);
        assert!(!svg.contains("<script") && svg.contains("&lt;/text&gt;"), "{svg}");
        assert_eq!(svg.matches("<g ").count(), drawn.len());
    }
}
