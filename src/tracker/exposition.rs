//! The numbers of the tracker as OpenMetrics text, which Prometheus reads.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::labels::{Asked, Dropped, Refused, Resumption, Shaken, Stage};
use super::metrics::{BOUNDS, Histogram, Metrics};

/// The media type of the text.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All numbers, now.
///
/// # Errors
/// When the text cannot be made, which does not happen: it goes to memory.
pub fn render(metrics: &Arc<Metrics>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(View(Arc::clone(metrics))));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct View(Arc<Metrics>);

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn family(
        &mut self,
        (name, help, kind): (&str, &str, MetricType),
        label: &str,
        values: impl Iterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, kind)?;
        for (value, count) in values {
            let labels = [(label, value)];
            let mut one = metric.encode_family(&labels)?;
            match kind {
                MetricType::Counter => one.encode_counter::<NoLabelSet, _, u64>(&count, None)?,
                _ => one.encode_gauge(&float(count))?,
            }
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, spans: &Histogram<u64>) -> fmt::Result {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(spans.buckets).collect();
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        let seconds = float(spans.sum_ns) / 1e9;
        metric.encode_histogram::<NoLabelSet>(seconds, spans.count(), &buckets, None)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "beyond 2^53 the last digits say nothing"
)]
const fn float(count: u64) -> f64 {
    count as f64
}

impl Collector for View {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (metrics, now) = (&self.0, Instant::now());
        let numbers = metrics.numbers();
        let mut page = Page(encoder);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.0
            .encode_descriptor("p2pfs_build", "What runs", None, MetricType::Info)?
            .encode_info(&version)?;
        page.gauge(
            "p2pfs_tracker_uptime_seconds",
            "Since the tracker started",
            metrics.uptime(now).as_secs_f64(),
        )?;
        page.gauge(
            "p2pfs_tracker_heartbeat_interval_seconds",
            "How often peers say that they are here",
            metrics.heartbeat().as_secs_f64(),
        )?;
        page.gauge(
            "p2pfs_tracker_peers",
            "Peers that are here",
            float(numbers.peers),
        )?;
        page.gauge(
            "p2pfs_tracker_names",
            "Different names that are published",
            float(numbers.names),
        )?;
        page.gauge(
            "p2pfs_tracker_files",
            "What all peers publish together",
            float(numbers.files),
        )?;
        page.family(
            (
                "p2pfs_tracker_sessions",
                "Sessions by state",
                MetricType::Gauge,
            ),
            "state",
            Stage::ALL
                .map(Stage::label)
                .into_iter()
                .zip(numbers.sessions),
        )?;
        let counter = MetricType::Counter;
        page.family(
            ("p2pfs_tracker_requests", "Requests by kind", counter),
            "kind",
            Asked::ALL
                .map(Asked::label)
                .into_iter()
                .zip(numbers.requests),
        )?;
        page.family(
            (
                "p2pfs_tracker_refusals",
                "Refused requests by reason",
                counter,
            ),
            "reason",
            Refused::ALL
                .map(Refused::label)
                .into_iter()
                .zip(numbers.refusals),
        )?;
        page.family(
            (
                "p2pfs_tracker_drops",
                "Datagrams that came to nothing, by reason",
                counter,
            ),
            "reason",
            Dropped::ALL
                .map(Dropped::label)
                .into_iter()
                .zip(numbers.drops),
        )?;
        page.family(
            (
                "p2pfs_tracker_handshakes",
                "Handshakes by their end",
                counter,
            ),
            "outcome",
            Shaken::ALL
                .into_iter()
                .map(|how| (how.label(), metrics.handshakes(how))),
        )?;
        page.family(
            (
                "p2pfs_tracker_resumptions",
                "Resumptions by ticket, by their end",
                counter,
            ),
            "outcome",
            Resumption::ALL
                .map(Resumption::label)
                .into_iter()
                .zip(numbers.resumptions),
        )?;
        page.counter(
            "p2pfs_tracker_password_checks",
            "Passwords that were hashed",
            metrics.password_checks(),
        )?;
        page.gauge(
            "p2pfs_tracker_logins_waiting",
            "Logins that wait for their password to be hashed",
            float(metrics.logins_waiting()),
        )?;
        page.counter(
            "p2pfs_tracker_received_bytes",
            "Bytes of datagrams that came",
            numbers.received_bytes,
        )?;
        page.counter(
            "p2pfs_tracker_sent_bytes",
            "Bytes of datagrams that left",
            numbers.sent_bytes,
        )?;
        page.histogram(
            "p2pfs_tracker_request_duration_seconds",
            "From a request to its answer",
            &numbers.latency,
        )?;
        page.histogram(
            "p2pfs_tracker_search_duration_seconds",
            "One search, without the way to it",
            &numbers.search,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_text_has_each_number_once_and_an_end() {
        let metrics = Arc::new(Metrics::new(Instant::now(), Duration::from_secs(2)));
        let counters = metrics.counters();
        counters.searched(Duration::from_millis(3));
        counters.not_sent(true);
        metrics.welcomed();
        let text = render(&metrics).unwrap();
        for line in [
            "# TYPE p2pfs_tracker_handshakes counter",
            "p2pfs_tracker_handshakes_total{outcome=\"completed\"} 1",
            "p2pfs_tracker_drops_total{reason=\"send_buffer_full\"} 1",
            "p2pfs_tracker_search_duration_seconds_bucket{le=\"0.0025\"} 0",
            "p2pfs_tracker_search_duration_seconds_bucket{le=\"0.005\"} 1",
            "p2pfs_tracker_search_duration_seconds_bucket{le=\"+Inf\"} 1",
            "p2pfs_tracker_search_duration_seconds_count 1",
            "p2pfs_tracker_heartbeat_interval_seconds 2.0",
        ] {
            assert_eq!(
                text.lines().filter(|found| *found == line).count(),
                1,
                "{line}\n{text}"
            );
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
