//! LATENCY, SLOWLOG: what took long; INFO's `commandstats` and `latencystats`.

use super::{Context, Entry, help};
use crate::command::args::with_argument;
use crate::command::costs::{Counter, Histogram, Total};
use crate::gateway::Shared;
use crate::gateway::backend::Backend;
use crate::resp::number::parse_int;
use crate::resp::{ReplyBuf, Request};
use std::sync::atomic::Ordering::Relaxed;

pub fn answer<B: Backend>(context: &Context<'_, B>, entry: &'static Entry, request: Request<'_>, out: &mut ReplyBuf) {
    let shared = context.shared;
    let events = shared.latency.events();
    match entry.name {
        "latency|latest" => {
            out.array(events.len());
            for (name, event) in events {
                let (second, ms) = event.samples.back().copied().unwrap_or_default();
                out.array(4);
                out.bulk(name.as_bytes());
                [second, ms, event.max_ms].iter().for_each(|n| out.int(*n));
            }
        }
        "latency|history" => {
            let event = std::str::from_utf8(request.arg(2)).ok().and_then(|name| events.get(name));
            let samples = event.map(|event| event.samples.clone()).unwrap_or_default();
            out.array(samples.len());
            for (second, ms) in samples {
                out.array(2);
                out.int(second);
                out.int(ms);
            }
        }
        "latency|graph" => match std::str::from_utf8(request.arg(2)).ok().and_then(|name| events.get_key_value(name)) {
            Some((name, event)) => out.verbatim(b"txt", event.graph(name, shared.backend.now_ms() / 1000).as_bytes()),
            None => out.error(with_argument("ERR No samples available for event '%s'", request.arg(2))),
        },
        "latency|reset" => {
            let names: Vec<&[u8]> = request.iter().skip(2).collect();
            out.int(shared.latency.reset(&names) as i64);
        }
        "latency|histogram" => histogram(shared, request, out),
        "latency|doctor" => out.verbatim(b"txt", doctor(shared).as_bytes()),
        "latency|help" => help(out, "LATENCY", HELP),
        _ => slow_log(context, entry, request, out),
    }
}

fn histogram<B: Backend>(shared: &Shared<B>, request: Request<'_>, out: &mut ReplyBuf) {
    let all = shared.commands();
    let wanted = |name: &str| {
        let family = name.split('|').next().unwrap_or_default();
        let named = |arg: &[u8]| [name, family].iter().any(|n| arg.eq_ignore_ascii_case(n.as_bytes()));
        request.len() == 2 || request.iter().skip(2).any(named)
    };
    let timed = |total: &Total| !total.latency.is_empty();
    let shown: Vec<&(String, Total)> = all.iter().filter(|(name, total)| timed(total) && wanted(name)).collect();
    out.map(shown.len());
    for (name, total) in shown {
        out.bulk(name.as_bytes());
        out.map(2);
        out.bulk(b"calls");
        out.int(total.counter.calls as i64);
        out.bulk(b"histogram_usec");
        let steps = cumulative(&total.latency);
        out.map(steps.len());
        for (usec, calls) in steps {
            out.int(usec);
            out.int(calls as i64);
        }
    }
}

/// Calls that took no more than so many microseconds, where that number grows.
fn cumulative(latency: &Histogram) -> Vec<(i64, u64)> {
    let mut steps: Vec<(i64, u64)> = Vec::new();
    let mut calls = 0;
    for (bucket, n) in latency.0.iter().enumerate().filter(|(_, n)| **n > 0) {
        calls += n;
        let usec = (1u64 << bucket).div_ceil(1000).next_power_of_two() as i64;
        match steps.last_mut() {
            Some(last) if last.0 == usec => last.1 = calls,
            _ => steps.push((usec, calls)),
        }
    }
    steps
}

fn doctor<B: Backend>(shared: &Shared<B>) -> String {
    let events = shared.latency.events();
    if events.is_empty() && shared.config.latency_ms.load(Relaxed) == 0 {
        return "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Look instance. You may use \"CONFIG SET \
                latency-monitor-threshold <milliseconds>.\" in order to enable it.\n"
            .into();
    }
    if events.is_empty() {
        return "Dave, no latency spike was observed during the lifetime of this Look instance, not in the slightest bit.\n"
            .into();
    }
    let mut text = "Dave, I have observed latency spikes in this Look instance.\n\n".to_owned();
    for (i, (name, event)) in events.iter().enumerate() {
        let count = event.samples.len().max(1) as i64;
        let average = event.samples.iter().map(|s| s.1).sum::<i64>() / count;
        text += &format!(
            "{}. {name}: {count} latency spikes (average {average}ms). Worst all time event {}ms.\n",
            i + 1,
            event.max_ms
        );
    }
    text + "\nI have a few advices for you:\n\n- Check your Slow Log (SLOWLOG GET) to understand what are the commands you are running \
            which are too slow to execute, and LOOK.EXPLAIN for their bounds.\n"
}

/// INFO's lines of `commandstats`.
pub fn command_stats(stats: &[(String, Total)]) -> impl Iterator<Item = (String, String)> {
    stats.iter().map(|(name, total)| {
        let c = &total.counter;
        let usec = c.nanos / 1000;
        let each = c.nanos as f64 / 1000.0 / c.calls.max(1) as f64;
        let Counter { calls, failed, rejected, .. } = c;
        let value = format!(
            "calls={calls},usec={usec},usec_per_call={each:.2},rejected_calls={rejected},failed_calls={failed}"
        );
        (format!("cmdstat_{name}"), value)
    })
}

/// INFO's lines of `latencystats`, for percentiles as the configuration names them.
pub fn latency_stats(stats: &[(String, Total)], percentiles: &str) -> Vec<(String, String)> {
    let line = |(name, total): &(String, Total)| {
        let of = |p: &str| {
            let usec = total.latency.percentile(p.parse().unwrap_or(50.0)) as f64 / 1000.0;
            format!("p{p}={usec:.3}")
        };
        let values: Vec<String> = percentiles.split_whitespace().map(of).collect();
        (format!("latency_percentiles_usec_{name}"), values.join(","))
    };
    stats.iter().filter(|(_, total)| !total.latency.is_empty()).map(line).collect()
}

fn slow_log<B: Backend>(context: &Context<'_, B>, entry: &'static Entry, request: Request<'_>, out: &mut ReplyBuf) {
    let log = &context.shared.slow_log;
    match entry.name {
        "slowlog|help" => help(out, "SLOWLOG", SLOWLOG_HELP),
        "slowlog|len" => out.int(log.len() as i64),
        "slowlog|reset" => {
            log.reset();
            out.ok();
        }
        _ => {
            let count = match (request.len(), parse_int(request.arg(2))) {
                (2, _) => 10,
                (_, Some(-1)) => usize::MAX,
                (_, None | Some(..-1)) => return out.error("ERR count should be greater than or equal to -1"),
                (_, Some(n)) => n as usize,
            };
            let entries = log.newest(count);
            out.array(entries.len());
            for slow in entries {
                out.array(6);
                out.int(slow.id);
                out.int(slow.time_s);
                out.int(slow.micros);
                out.array(slow.args.len());
                slow.args.iter().for_each(|arg| out.bulk(arg));
                out.bulk(slow.addr.as_bytes());
                out.bulk(slow.name.as_bytes());
            }
        }
    }
}

const SLOWLOG_HELP: &[&str] = &[
    "GET [<count>]",
    "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
    "    Entries are made of:",
    "    id, timestamp, time in microseconds, arguments array, client IP and port,",
    "    client name",
    "LEN",
    "    Return the length of the slowlog.",
    "RESET",
    "    Reset the slowlog.",
];
const HELP: &[&str] = &[
    "DOCTOR",
    "    Return a human readable latency analysis report.",
    "GRAPH <event>",
    "    Return an ASCII latency graph for the <event> class.",
    "HISTORY <event>",
    "    Return time-latency samples for the <event> class.",
    "LATEST",
    "    Return the latest latency samples for all events.",
    "RESET [<event> ...]",
    "    Reset latency data of one or more <event> classes.",
    "    (default: reset all data for all event classes)",
    "HISTOGRAM [COMMAND ...]",
    "    Return a cumulative distribution of latencies in the format of a histogram for the specified command names.",
    "    If no commands are specified then all histograms are replied.",
];
