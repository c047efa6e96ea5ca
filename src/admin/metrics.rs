//! `/metrics`: OpenMetrics text, written anew for each scrape from numbers that others keep.
//!
//! Units are in the names, as Prometheus asks: seconds, bytes, entries; a counter ends in `_total`. Names and their meanings are a
//! promise to dashboards: the README lists them.

use super::history::SHARES;
use crate::base::histogram::Distribution;
use crate::command::costs::{Counter, Total};
use crate::gateway::Shared;
use crate::gateway::backend::{Backend, NodeFacts, Timings};
use crate::gateway::observe::process_bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `recent`: what took how long in the last seconds.
pub fn text<B: Backend>(shared: &Shared<B>, recent: Timings) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("look");
    registry.register_collector(Box::new(Scrape::take(shared, recent)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Everything at one moment.
#[derive(Debug)]
struct Scrape {
    facts: NodeFacts,
    /// By name.
    commands: Vec<(String, Total)>,
    ever: Timings,
    recent: Timings,
    uptime_s: f64,
    clients: usize,
    resident_bytes: u64,
    /// `(name, help, value)`
    totals: [(&'static str, &'static str, u64); 11],
}

impl Scrape {
    fn take<B: Backend>(shared: &Shared<B>, recent: Timings) -> Scrape {
        let totals = &shared.totals;
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let output_limit = &totals.output_limit_disconnections;
        Scrape {
            facts: shared.backend.facts(),
            commands: shared.commands(),
            ever: shared.backend.timings(),
            recent,
            uptime_s: shared.started.elapsed().as_secs_f64(),
            clients: shared.clients.len(),
            resident_bytes: process_bytes("VmRSS"),
            totals: [
                ("connections", "Connections of clients that were let in", count(&totals.connections)),
                ("rejected_connections", "Connections that were turned away", count(&totals.rejected)),
                ("tls_failures", "TLS handshakes that came to nothing", count(&totals.tls_failures)),
                ("commands", "Commands taken from clients", count(&totals.commands)),
                ("reads", "Reads among them", count(&totals.reads)),
                ("writes", "Writes among them", count(&totals.writes)),
                ("error_replies", "Replies that were errors", count(&totals.error_replies)),
                ("output_limit_disconnections", "Clients closed for not taking their replies", count(output_limit)),
                (
                    "query_limit_disconnections",
                    "Clients closed for too long requests",
                    count(&totals.query_limit_disconnections),
                ),
                ("input_bytes", "Bytes read from clients", count(&totals.bytes_in)),
                ("output_bytes", "Bytes written to clients", count(&totals.bytes_out)),
            ],
        }
    }
}

/// One metric after the other.
struct Lines<'a>(DescriptorEncoder<'a>);

impl Lines<'_> {
    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counters<'v, V: EncodeCounterValue>(
        &mut self,
        (name, help, label): (&str, &str, &str),
        values: impl Iterator<Item = (&'v str, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            metric.encode_family(&[(label, of)])?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    fn gauges<V: EncodeGaugeValue>(
        &mut self,
        (name, help, label): (&str, &str, &str),
        values: impl IntoIterator<Item = (String, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            metric.encode_family(&[(label, of.as_str())])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A histogram of all since the start, and quantiles of the last seconds.
    fn distribution(&mut self, name: &str, help: &str, ever: &Distribution, recent: &Distribution) -> fmt::Result {
        let full = format!("{name}_seconds");
        let mut metric = self.0.encode_descriptor(&full, help, None, MetricType::Histogram)?;
        let mut buckets: Vec<_> = ever.octaves().map(|(end, count)| (end.as_secs_f64(), count)).collect();
        buckets.push((f64::INFINITY, 0));
        metric.encode_histogram::<NoLabelSet>(ever.sum.as_secs_f64(), ever.count(), &buckets, None)?;
        let (name, help) = (format!("{name}_recent_seconds"), format!("{help}; of the last ten seconds"));
        let quantiles = SHARES.map(|share| (share.to_string(), recent.quantile(share).as_secs_f64()));
        self.gauges((&name, &help, "quantile"), quantiles)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut lines = Lines(encoder);
        self.log(&mut lines)?;
        self.times(&mut lines)?;
        self.memory(&mut lines)?;
        self.clients(&mut lines)?;
        commands(&mut lines, &self.commands)
    }
}

impl Scrape {
    fn log(&self, lines: &mut Lines<'_>) -> fmt::Result {
        let facts = &self.facts;
        let build = [(env!("CARGO_PKG_VERSION").to_owned(), 1u64)];
        lines.gauges(("build", "1, with the version of this node", "version"), build)?;
        lines.gauge("uptime_seconds", "Since this node started", self.uptime_s)?;
        lines.gauge("epoch", "Newest epoch published on this node", facts.epoch.0)?;
        lines.gauge("epoch_since", "Oldest epoch that can be read", facts.since.0)?;
        lines.counter("epochs", "Epochs made by this node since its start", self.ever.epochs)?;
        lines.counter("batches", "Batches applied by this node since its start", self.ever.batches)?;
        lines.gauge("leader", "1 while this node leads", facts.is_leader as u64)?;
        lines.gauge("leader_known", "1 while this node knows a leader", facts.leader.is_some() as u64)?;
        lines.gauge(
            "failed",
            "1 when this node takes no writes until it is started again",
            facts.failure.is_some() as u64,
        )?;
        lines.gauge("term", "Raft's term", facts.term)?;
        let log = [("last", facts.log_last), ("committed", facts.log_committed), ("applied", facts.log_applied)];
        let log = log.map(|(name, index)| (name.to_owned(), index));
        lines.gauges(("log_index", "How far the log has come, in entries", "position"), log)?;
        let lag = facts.peers.iter().filter(|peer| peer.4).map(|peer| (peer.0.to_string(), peer.3));
        lines.gauges(("node_lag_entries", "Entries that a node lacks on its disk; known to the leader", "node"), lag)
    }

    fn times(&self, lines: &mut Lines<'_>) -> fmt::Result {
        let (ever, recent) = (&self.ever, &self.recent);
        for (name, help, of) in [
            (
                "batch_wait",
                "From the first write of a batch until the batch leaves this node",
                (|t| &t.batch_wait) as fn(&Timings) -> &Distribution,
            ),
            ("commit", "From a leader's proposal of a batch until a majority has it on disk", |t| &t.commit),
            ("log_sync", "A write to the log's disk and its sync", |t| &t.sync),
            ("apply", "Applying a set of committed entries", |t| &t.apply),
        ] {
            lines.distribution(name, help, of(ever), of(recent))?;
        }
        Ok(())
    }

    fn memory(&self, lines: &mut Lines<'_>) -> fmt::Result {
        let facts = &self.facts;
        lines.gauge("window_bytes", "Replaced versions kept in memory", facts.window_bytes)?;
        lines.gauge("window_roots", "Versions kept in memory", facts.window_roots)?;
        let memory = [("resident", self.resident_bytes), ("arena", facts.used_memory), ("live", facts.dataset_bytes)];
        let memory = memory.map(|(name, bytes)| (name.to_owned(), bytes));
        lines.gauges(
            ("memory_bytes", "Of the process; of the store's arena; of the newest version in it", "of"),
            memory,
        )?;
        let keys = facts.keyspace.iter().map(|&(db, keys, ..)| (db.to_string(), keys));
        lines.gauges(("keys", "Keys of a database", "db"), keys)?;
        let expiring = facts.keyspace.iter().map(|&(db, _, expiring, _)| (db.to_string(), expiring));
        lines.gauges(("expiring_keys", "Keys of a database that have a deadline", "db"), expiring)?;
        lines.counter("expired_keys", "Keys removed because their deadline had passed", facts.expired_keys)?;
        lines.gauge(
            "checkpoint_timestamp_seconds",
            "When the newest checkpoint was made, since 1970",
            facts.last_checkpoint_s,
        )?;
        lines.gauge(
            "checkpoint_ok",
            "0 when the last attempt at a checkpoint failed",
            facts.last_checkpoint_ok as u64,
        )?;
        lines.gauge("checkpoint_behind_epochs", "Epochs since the newest checkpoint", facts.changes_since_checkpoint)
    }

    fn clients(&self, lines: &mut Lines<'_>) -> fmt::Result {
        lines.gauge("clients", "Connections of clients now", self.clients as u64)?;
        for (name, help, value) in self.totals {
            lines.counter(name, help, value)?;
        }
        Ok(())
    }
}

fn commands(lines: &mut Lines<'_>, stats: &[(String, Total)]) -> fmt::Result {
    for (name, help, of) in [
        ("command_calls", "Calls", (|c| c.calls) as fn(&Counter) -> u64),
        ("command_failed", "Calls that answered an error", |c| c.failed),
        ("command_rejected", "Calls refused before they ran", |c| c.rejected),
        ("command_steps", "Steps that calls ran: what LOOK.EXPLAIN calls ops", |c| c.ops),
        ("command_places", "Places in the store that calls touched: what LOOK.EXPLAIN calls locs", |c| c.locs),
    ] {
        let values = stats.iter().map(|(name, total)| (name.as_str(), of(&total.counter)));
        lines.counters((name, help, "command"), values)?;
    }
    let timed = stats.iter().filter(|(_, total)| total.counter.nanos > 0);
    let seconds = timed.map(|(name, total)| (name.as_str(), total.counter.nanos as f64 / 1e9));
    lines.counters(("command_seconds", "Time that calls took", "command"), seconds)
}
