//! Plots, written as SVG by hand: horizontal bars, grouped.

use super::candidate::Group;
use super::measure::Sample;
use super::report::Report;
use super::table;

/// File name and text of each plot that has something to show.
pub(super) fn all(report: &Report<'_>) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    for (file, title, group) in [
        ("cpu-one-proxy.svg", "One proxy: CPU us per request, 128-byte answers", Group::One),
        ("cpu-pairs.svg", "Pair of sidecars, mutual TLS: CPU us per request, both together", Group::Pair),
    ] {
        let bars = cpu(report, "keepalive", group);
        plots.push((file.to_owned(), draw(title, "the line: least to greatest of all rounds", &bars)));
    }
    plots.push((
        "cpu-sizes.svg".to_owned(),
        draw(
            "One proxy, larger answers: CPU us per request",
            "the line: least to greatest of all rounds",
            &cpu(report, "sizes", Group::One),
        ),
    ));
    for (file, title, scenario, group) in [
        ("cpu-grpc.svg", "One proxy, unary gRPC calls: CPU us per call", "grpc", Group::One),
        ("cpu-grpc-pairs.svg", "Pair of sidecars, unary gRPC calls: CPU us per call", "grpc", Group::Pair),
        ("cpu-tcp.svg", "One proxy, bulk TCP: CPU seconds per gigabyte", "tcp", Group::One),
        ("cpu-tcp-pairs.svg", "Pair of sidecars, bulk TCP: CPU seconds per gigabyte", "tcp", Group::Pair),
    ] {
        let bars = cpu(report, scenario, group);
        plots.push((file.to_owned(), draw(title, "the line: least to greatest of all rounds", &bars)));
    }
    for (file, case) in [("latency-1000.svg", "1,000/s"), ("latency-5000.svg", "5,000/s")] {
        let title = format!("Added latency at {case} over 32 connections, us");
        plots.push((file.to_owned(), draw(&title, "bar: p50, line: to p99", &added(report, case))));
    }
    plots.retain(|(_, text)| text.contains("<rect class"));
    plots
}

/// A group of bars under one heading.
struct Bars {
    heading: String,
    bars: Vec<Bar>,
}

/// One bar: name, value, and a line from one value to another.
struct Bar {
    name: String,
    value: f64,
    line: (f64, f64),
    /// Beside the bar.
    text: String,
}

fn cpu(report: &Report<'_>, scenario: &str, group: Group) -> Vec<Bars> {
    let scenarios = report.scenarios.iter().filter(|s| s.name == scenario);
    let cases =
        scenarios.flat_map(|scenario| scenario.cases.iter().map(|case| (scenario.unit.digits(), case)));
    cases
        .map(|(digits, case)| {
            let bars = report.candidates.iter().filter(|candidate| candidate.group == group);
            let bars = bars.filter_map(|candidate| {
                let cell = report.cell(scenario, &candidate.name, "", &case.name)?;
                let cpu = cell.of(Sample::cpu_us);
                Some(Bar {
                    name: candidate.name.clone(),
                    value: cpu.median,
                    line: (cpu.min, cpu.max),
                    text: format!("{:.digits$}", cpu.median),
                })
            });
            Bars { heading: case.name.clone(), bars: bars.collect() }
        })
        .collect()
}

fn added(report: &Report<'_>, case: &str) -> Vec<Bars> {
    [(Group::One, "one proxy"), (Group::Pair, "pair of sidecars, mutual TLS")]
        .map(|(group, heading)| {
            let bars = report.candidates.iter().filter(|candidate| candidate.group == group);
            let bars = bars.filter_map(|candidate| {
                let cell = report.cell("latency", &candidate.name, "", case)?;
                let p50 = table::added_us(report, "latency", cell, 0)?;
                let p99 = table::added_us(report, "latency", cell, 2)?;
                let text = format!("{p50:.0}, p99 {p99:.0}");
                Some(Bar { name: candidate.name.clone(), value: p50.max(0.0), line: (p50, p99), text })
            });
            Bars { heading: heading.to_owned(), bars: bars.collect() }
        })
        .into()
}

fn draw(title: &str, note: &str, groups: &[Bars]) -> String {
    let most = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value.max(bar.line.1));
    let most = most.fold(1.0, f64::max);
    let x = |value: f64| LEFT + value.max(0.0) / most * WIDE;
    let mut body = String::new();
    let mut y = TOP;
    for group in groups.iter().filter(|group| !group.bars.is_empty()) {
        y += ROW;
        body.push_str(&format!(
            "<text x=\"12\" y=\"{:.0}\" font-weight=\"bold\">{}</text>\n",
            y, group.heading
        ));
        for bar in &group.bars {
            y += ROW;
            let ours = bar.name.starts_with("leno");
            let (class, weight) = if ours { ("leno", "bold") } else { ("peer", "normal") };
            body.push_str(&format!(
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\" font-weight=\"{weight}\">{}</text>\n\
                 <rect class=\"{class}\" x=\"{LEFT:.0}\" y=\"{:.0}\" width=\"{:.1}\" height=\"{:.0}\"/>\n\
                 <path d=\"M{:.1} {:.0}H{:.1}\" stroke=\"#222\" stroke-width=\"2\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.0}\" font-weight=\"{weight}\">{}</text>\n",
                LEFT - 8.0,
                y,
                bar.name,
                y - 13.0,
                x(bar.value) - LEFT,
                ROW - 4.0,
                x(bar.line.0),
                y - 5.0,
                x(bar.line.1),
                x(bar.value.max(bar.line.1)) + 6.0,
                y,
                bar.text,
            ));
        }
        y += ROW / 2.0;
    }
    let (width, height) = (LEFT + WIDE + 130.0, y + ROW);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <style>.leno {{ fill: #2a7de1 }} .peer {{ fill: #b8bfc9 }}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"16\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"12\" y=\"40\" fill=\"#555\">{note}; shorter is better</text>\n{body}</svg>\n"
    )
}

/// Where bars begin, and how long the longest is.
const LEFT: f64 = 150.0;
const WIDE: f64 = 520.0;
/// Under title and note.
const TOP: f64 = 44.0;
const ROW: f64 = 20.0;
