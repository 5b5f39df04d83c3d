//! Reading a Prometheus page: plain values, and quantiles of histograms.

use std::collections::BTreeMap;

use choria_emulator::Quantiles;

/// The values of one page.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    values: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads a page; lines that are no values are skipped.
    pub(crate) fn parse(page: &str) -> Self {
        let values = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self { values: values.collect() }
    }

    /// The sum of all series of a metric.
    pub(crate) fn value(&self, name: &str) -> f64 {
        let of = |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        // An empty sum of floats is -0.
        self.values.iter().filter(|(key, _)| of(key)).fold(0.0, |sum, (_, value)| sum + value)
    }

    /// Quantiles of each series of a histogram in seconds, by the value of one label, in milliseconds. They are
    /// interpolated inside the bucket that they fall into, so they are as exact as the buckets are fine.
    pub(crate) fn quantiles(&self, histogram: &str, label: &str) -> BTreeMap<String, Quantiles> {
        let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (key, count) in &self.values {
            let Some(labels) = key.strip_prefix(histogram).and_then(|rest| rest.strip_prefix("_bucket")) else {
                continue;
            };
            let (Some(value), Some(bound)) = (label_of(labels, label), label_of(labels, "le")) else { continue };
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap_or(f64::NAN) };
            series.entry(value.to_owned()).or_default().push((bound, *count));
        }
        let mut all = BTreeMap::new();
        for (value, mut buckets) in series {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            let at = |share| interpolated(&buckets, share).map(|seconds| (seconds * 1e6).round() / 1e3);
            if let (Some(p50), Some(p95), Some(p99)) = (at(0.5), at(0.95), at(0.99)) {
                all.insert(value, Quantiles { p50, p95, p99 });
            }
        }
        all
    }
}

fn label_of<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// A quantile of cumulated buckets. What lies beyond the last bound is told as that bound.
fn interpolated(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let all = buckets.last()?.1;
    if all <= 0.0 {
        return None;
    }
    let rank = share * all;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            if bound.is_infinite() {
                return Some(low);
            }
            let inside = count - below;
            return Some(if inside > 0.0 { low + (bound - low) * (rank - below) / inside } else { *bound });
        }
        (low, below) = (*bound, *count);
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "HTTP/1.1 200 OK\n\n# TYPE h histogram\n\
        h_bucket{phase=\"a\",site=\"\",le=\"0.001\"} 0\n\
        h_bucket{phase=\"a\",site=\"\",le=\"0.01\"} 90\n\
        h_bucket{phase=\"a\",site=\"\",le=\"+Inf\"} 100\n\
        h_bucket{phase=\"b\",site=\"\",le=\"0.001\"} 0\n\
        h_bucket{phase=\"b\",site=\"\",le=\"+Inf\"} 0\n\
        h_sum{phase=\"a\",site=\"\"} 1.5\n\
        refused{reason=\"x\",site=\"\"} 2\nrefused{reason=\"y\",site=\"\"} 3\nplain 7\n";

    #[test]
    fn series_are_summed() {
        let metrics = Metrics::parse(PAGE);
        assert_eq!(metrics.value("refused"), 5.0);
        assert_eq!(metrics.value("plain"), 7.0);
        assert_eq!(metrics.value("absent"), 0.0);
    }

    #[test]
    fn quantiles_are_interpolated() {
        let quantiles = Metrics::parse(PAGE).quantiles("h", "phase");
        assert_eq!(quantiles.len(), 1, "a series without values has no quantiles: {quantiles:?}");
        assert_eq!(quantiles["a"], Quantiles { p50: 6.0, p95: 10.0, p99: 10.0 });
    }
}
