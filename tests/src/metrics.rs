//! Looking up samples on a metrics page (OpenMetrics text).

use anyhow::{Context as _, Result, bail};

/// Values of the samples of `name` that have all of these labels, in the page's order.
///
/// # Errors
/// When such a sample has no number.
pub fn samples(page: &str, name: &str, labels: &[(&str, &str)]) -> Result<Vec<f64>> {
    page.lines()
        .filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
                && labels.iter().all(|(label, value)| {
                    let pair = format!("{label}=\"{value}\"");
                    line.contains(&format!("{{{pair}")) || line.contains(&format!(",{pair}"))
                })
        })
        .map(|line| {
            // An exemplar may follow the value, and a label's value may hold spaces.
            let sample = line.split_once(" # ").map_or(line, |(sample, _)| sample);
            let value = sample.rsplit_once(' ').with_context(|| format!("no value in {line:?}"))?.1;
            value.parse().with_context(|| format!("no number in {line:?}"))
        })
        .collect()
}

/// The one sample that there must be at most once.
///
/// # Errors
/// When there are more.
pub fn sample(page: &str, name: &str, labels: &[(&str, &str)]) -> Result<Option<f64>> {
    match samples(page, name, labels)?.as_slice() {
        [] => Ok(None),
        [value] => Ok(Some(*value)),
        several => bail!("{name} with {labels:?} is there {} times", several.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# TYPE killed counter
killed_total{pod=\"a b\",container_id=\"c1\"} 2 # {death_id=\"x\"} 1.0
killed_total{pod=\"d\",container_id=\"c2\"} 0
killed_total_else 7
up 1
# EOF
";

    #[test]
    fn finds_a_sample_by_its_labels() {
        assert_eq!(sample(PAGE, "killed_total", &[("container_id", "c1")]).unwrap(), Some(2.0));
        assert_eq!(
            sample(PAGE, "killed_total", &[("pod", "d"), ("container_id", "c2")]).unwrap(),
            Some(0.0)
        );
        assert_eq!(sample(PAGE, "killed_total", &[("container_id", "c")]).unwrap(), None);
        assert_eq!(
            sample(PAGE, "killed_total", &[("id", "c1")]).unwrap(),
            None,
            "a label's name is whole"
        );
        assert_eq!(sample(PAGE, "up", &[]).unwrap(), Some(1.0));
        assert!(sample(PAGE, "killed_total", &[]).is_err());
    }
}
