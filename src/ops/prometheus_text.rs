//! Prometheus' text format: samples, gauges and histograms as text.

use std::fmt::Display;

/// The number of values up to each bound and above the one before. The last number is of values above all
/// bounds.
pub(super) struct Histogram<'a, S> {
    pub(super) bounds: &'a [f64],
    pub(super) counts: &'a [u64],
    pub(super) sum: S,
}

/// The text of an answer. Each name begins with `batchkeeper_`.
#[derive(Default)]
pub(super) struct MetricsText(pub(super) String);

impl MetricsText {
    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.sample(name, &[], value);
    }

    /// A gauge with a sample for each value of a label.
    pub(super) fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(name, help, "gauge");
        for (value, number) in samples {
            self.sample(name, &[(label, value)], number);
        }
    }

    /// The help and the type of the samples that follow.
    pub(super) fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.0 += &format!("# HELP batchkeeper_{name} {help}\n# TYPE batchkeeper_{name} {kind}\n");
    }

    /// A sample.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = labels.iter();
        let labels: Vec<String> = labels
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            some => format!("{{{}}}", some.join(",")),
        };
        self.0 += &format!("batchkeeper_{name}{labels} {value}\n");
    }

    /// The samples of a histogram. Each bucket includes the smaller ones.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        histogram: &Histogram<'_, impl Display>,
    ) {
        let bounds = histogram.bounds.iter().map(f64::to_string);
        let bounds = bounds.chain(["+Inf".to_owned()]);
        let mut count = 0;
        for (bound, number) in bounds.zip(histogram.counts) {
            count += number;
            let labels = [labels, &[("le", &bound)]].concat();
            self.sample(&format!("{name}_bucket"), &labels, count);
        }
        self.sample(&format!("{name}_sum"), labels, &histogram.sum);
        self.sample(&format!("{name}_count"), labels, count);
    }
}

/// A label's value, escaped.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_the_page() {
        let mut page = MetricsText::default();
        page.gauges("x", "Help.", "a", [("q\"\\\n", 3)]);
        let wanted =
            "# HELP batchkeeper_x Help.\n# TYPE batchkeeper_x gauge\nbatchkeeper_x{a=\"q\\\"\\\\\\n\"} 3\n";
        assert_eq!(page.0, wanted);
    }
}
