//! Measurements for people.

use choria_emulator::{Quantiles, Report};

use crate::commands::bench::{Document, IdleDocument, LoadDocument, PingDocument};
use crate::text::table;

/// A finished emulation.
pub(crate) fn emulation(report: &Report) -> String {
    let counts = &report.counts;
    let mut text = format!(
        "{} nodes: {} members, {} waiting, {} failed, {} lost, {} configured more than once; {:.3} s\n",
        counts.nodes, counts.members, counts.waiting, counts.failed, report.lost, report.duplicated, report.seconds
    );
    if !report.phases.is_empty() {
        text.push_str(&quantiles(report.phases.iter().map(|(name, quantiles)| (name.as_str(), quantiles))));
    }
    for (reason, count) in &report.failures {
        text.push_str(&format!("{count} failed: {reason}\n"));
    }
    text
}

/// A finished benchmark.
pub(crate) fn provisioning(document: &Document) -> String {
    let d = document;
    let mut text = format!(
        "\n{} nodes, {} keys, {} helper, {} cores: {:.1} nodes/s ({:.3} s with the pause of {:.0} s before each restart)\n\
         lost {}, configured more than once {}\n\n",
        d.nodes, d.key, d.helper, d.cores, d.rate_per_s, d.seconds, d.restart_pause_s, d.lost, d.duplicated
    );
    let rows: Vec<Vec<String>> = [
        ("broker", d.cpu_seconds.broker, d.cpu_ms_per_node.broker, d.peak_rss_bytes.broker),
        ("provisioner", d.cpu_seconds.provisioner, d.cpu_ms_per_node.provisioner, d.peak_rss_bytes.provisioner),
        ("helper", d.cpu_seconds.helper, d.cpu_ms_per_node.helper, d.peak_rss_bytes.helper),
        ("nodes", d.cpu_seconds.nodes, d.cpu_ms_per_node.nodes, d.peak_rss_bytes.nodes),
    ]
    .into_iter()
    .map(|(name, cpu, per_node, peak)| {
        vec![name.to_owned(), format!("{cpu:.2}"), format!("{per_node:.3}"), format!("{:.1}", peak as f64 / 1048576.0)]
    })
    .collect();
    let heading = ["", "CPU s", "CPU ms per node", "peak MiB"].map(str::to_owned);
    text.push_str(&table(&heading, &rows));
    text.push('\n');
    let all = std::iter::once(("latency", &d.latency_ms)).chain(d.phases.iter().map(|(name, q)| (name.as_str(), q)));
    text.push_str(&quantiles(all));
    for (reason, count) in &d.failures {
        text.push_str(&format!("{count} failed: {reason}\n"));
    }
    text.push_str(&format!("files in {} ({})\n", d.storage.directory, d.storage.kind));
    text
}

/// Nodes at rest.
pub(crate) fn idle(document: &IdleDocument) -> String {
    let d = document;
    let mut text = format!(
        "\n{} {} nodes at rest for {:.1} s, connected in {:.3} s, lost {}\n\n",
        d.nodes,
        if d.kind == "members" { "member" } else { "waiting" },
        d.idle_seconds,
        d.connect_seconds,
        d.lost
    );
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / 1048576.0);
    let rows: Vec<Vec<String>> = [
        ("broker", d.rss_bytes.broker, d.rss_bytes_per_node.broker, d.peak_rss_bytes.broker, d.idle_cpu_percent.broker),
        (
            "provisioner",
            d.rss_bytes.provisioner,
            d.rss_bytes_per_node.provisioner,
            d.peak_rss_bytes.provisioner,
            d.idle_cpu_percent.provisioner,
        ),
        ("nodes", d.rss_bytes.nodes, d.rss_bytes_per_node.nodes, d.peak_rss_bytes.nodes, d.idle_cpu_percent.nodes),
    ]
    .into_iter()
    .map(|(name, rss, each, peak, cpu)| {
        vec![name.to_owned(), mib(rss), format!("{:.1}", each as f64 / 1024.0), mib(peak), format!("{cpu:.1}")]
    })
    .collect();
    let heading = ["", "MiB", "KiB per node", "peak MiB", "CPU %"].map(str::to_owned);
    text.push_str(&table(&heading, &rows));
    text.push('\n');
    text
}

/// A fleet that was pinged.
pub(crate) fn ping(document: &PingDocument) -> String {
    let d = document;
    let rows: Vec<Vec<String>> = (1..)
        .zip(&d.rounds)
        .map(|(number, round)| {
            vec![
                number.to_string(),
                round.replies.to_string(),
                format!("{:.3}", round.seconds),
                format!("{:.3}", round.process_seconds),
            ]
        })
        .collect();
    let heading = ["ping", "answers", "s", "whole process, s"].map(str::to_owned);
    format!(
        "\n{} nodes, connected in {:.3} s, {} answers lost\n\n{}\nprocessor time for an answer: broker {:.1} µs, node {:.1} µs\n",
        d.nodes,
        d.connect_seconds,
        d.lost,
        table(&heading, &rows),
        d.cpu_us_per_answer.broker,
        d.cpu_us_per_answer.nodes
    )
}

/// A load on a server.
pub(crate) fn load(document: &LoadDocument) -> String {
    let (d, r) = (document, &document.report);
    let mut text = if d.load == "connections" {
        format!("{} connections in {:.3} s: {:.0} a second\n", r.messages, r.seconds, r.messages_per_s)
    } else {
        let mib = r.bytes_per_s / 1048576.0;
        format!(
            "{} from {} to {}, {} bytes each: {} messages in {:.3} s\n{:.0} messages/s, {mib:.1} MiB/s\n",
            d.load, d.publishers, d.subscribers, d.size, r.messages, r.seconds, r.messages_per_s
        )
    };
    if let Some(l) = &r.latency_us {
        text.push_str(&format!(
            "latency: half within {:.1} us, 99 % {:.1} us, 99.9 % {:.1} us\n",
            l.p50, l.p99, l.p999
        ));
    }
    if let (Some(cpu), Some(each), Some(rss)) = (d.server_cpu_seconds, d.server_cpu_us_per_message, d.server_rss_bytes)
    {
        let mib = rss as f64 / 1048576.0;
        text.push_str(&format!("server: {cpu:.2} s of processor time, {each:.3} us for each, {mib:.1} MiB resident\n"));
    }
    if let Some(each) = d.server_rss_bytes_per_connection {
        text.push_str(&format!("server: {:.1} KiB for each connection\n", each as f64 / 1024.0));
    }
    text
}

fn quantiles<'a>(rows: impl Iterator<Item = (&'a str, &'a Quantiles)>) -> String {
    let rows: Vec<Vec<String>> = rows
        .map(|(name, q)| {
            let shown = [q.p50, q.p95, q.p99].map(|value| format!("{value:.1}"));
            std::iter::once(name.to_owned()).chain(shown).collect()
        })
        .collect();
    let heading = ["ms", "p50", "p95", "p99"].map(str::to_owned);
    format!("{}\n", table(&heading, &rows))
}
