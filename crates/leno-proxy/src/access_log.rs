//! One JSON line per request, written by a thread of its own so that a slow disk never holds up a worker: when the
//! queue is full, lines are dropped and counted.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use leno_core::admission::Class;
use leno_core::backend::Chosen;
use leno_core::exchange::Record;
use leno_core::head::RequestHead;
use leno_core::mux::Kind;
use leno_core::rate::Charge;
use leno_core::route::{Changed, Decision, Link};
use leno_core::snapshot::Snapshot;

use crate::caller::Caller;
use crate::clock::unix_micros;
use crate::config::AccessLog;
use crate::drive::Entrance;

/// Lines waiting to be written; some 8 MiB at 500 bytes each.
const QUEUE_LINES_MAX: usize = 16 * 1024;

/// The workers' end of the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Option<SyncSender<String>>);

impl Log {
    /// True when lines are wanted at all.
    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Queues a line (without its end); false when it was dropped.
    pub(crate) fn write(&self, line: String) -> bool {
        match &self.0 {
            Some(queue) => match queue.try_send(line) {
                Ok(()) => true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
            },
            None => true,
        }
    }
}

/// Opens the log and starts its writer. The writer ends when every [`Log`] has been dropped.
pub(crate) fn open(target: &AccessLog) -> io::Result<(Log, Option<JoinHandle<()>>)> {
    let sink: Box<dyn Write + Send> = match target {
        AccessLog::Off => return Ok((Log(None), None)),
        AccessLog::Stdout => Box::new(io::stdout()),
        AccessLog::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
    };
    let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
    let writer = std::thread::Builder::new().name("access-log".into()).spawn(move || write(&lines, sink))?;
    Ok((Log(Some(queue)), Some(writer)))
}

fn write(lines: &Receiver<String>, sink: Box<dyn Write + Send>) {
    let mut sink = BufWriter::new(sink);
    while let Ok(mut line) = lines.recv() {
        loop {
            line.push('\n');
            // A full disk loses lines, never requests; it is said once per failed write at most by the flush below.
            let _ = sink.write_all(line.as_bytes());
            match lines.try_recv() {
                Ok(next) => line = next,
                Err(_) => break,
            }
        }
        if let Err(error) = sink.flush() {
            tracing::warn!(%error, "the access log cannot be written");
        }
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn json_string(out: &mut String, text: &[u8]) {
    out.push('"');
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// One request, as its line says it.
pub(crate) struct Entry<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) own_name: &'a str,
    pub(crate) peer: SocketAddr,
    pub(crate) link: Link<'a>,
    pub(crate) kind: Kind,
    pub(crate) head: &'a RequestHead<'a>,
    pub(crate) request_id: &'a [u8],
    pub(crate) record: &'a Record,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    /// What rules made of it, if they changed something.
    pub(crate) changed: Option<&'a Changed>,
    /// The rule that let it out of the mesh, or none, if that is where it goes.
    pub(crate) leaving: Option<&'a str>,
    /// How it was let in to the application, where that is limited.
    pub(crate) entrance: Option<&'a Entrance>,
    /// Why it failed, in words.
    pub(crate) why: Option<&'a str>,
}

impl Entry<'_> {
    /// The line, without its end.
    pub(crate) fn to_json(&self) -> String {
        let mut out = String::with_capacity(512);
        let (list, rule) = self.snapshot.rule_name(&self.record.decision);
        let (direction, source, destination) = match self.caller {
            Caller::Inbound { source, .. } if self.leaving.is_some() => ("outbound", &**source, "outside"),
            Caller::Inbound { source, .. } => ("inbound", &**source, self.own_name),
            _ if self.leaving.is_some() => ("outbound", self.own_name, "outside"),
            _ => ("outbound", self.own_name, if list.is_empty() { "unknown" } else { list }),
        };
        let rule = rule.or(self.leaving);
        // Writing to a String cannot fail.
        let _ = write!(out, "{{\"time_us\":{},\"direction\":\"{direction}\"", unix_micros());
        for (key, value) in [
            ("source", source.as_bytes()),
            ("destination", destination.as_bytes()),
            ("request_id", self.request_id),
            ("protocol", self.kind.word().as_bytes()),
            ("method", self.head.method),
            ("authority", self.head.authority),
            ("path", self.head.path),
            ("rule", rule.unwrap_or("").as_bytes()),
        ] {
            let _ = write!(out, ",\"{key}\":");
            json_string(&mut out, value);
        }
        // Who was not let in at all has met no rules.
        if self.kind != Kind::Tcp && self.caller.turn_away(self.head).is_none() {
            self.write_way(&mut out);
        }
        if let Some(changed) = self.changed {
            self.write_changes(changed, &mut out);
        }
        let _ = write!(
            out,
            ",\"peer\":\"{}\",\"status\":{},\"reason\":\"{}\",\"duration_us\":{},\"request_bytes\":{},\"response_bytes\":{}",
            self.peer,
            self.record.status,
            self.record.reason.map_or("", |reason| reason.word()),
            self.record.took().as_micros(),
            self.request_bytes,
            self.response_bytes,
        );
        if let Some(reason) = self.record.reason {
            let _ = write!(out, ",\"culprit\":\"{}\"", reason.culprit().word());
        }
        if let Some(why) = self.why {
            out.push_str(",\"why\":");
            json_string(&mut out, why.as_bytes());
        }
        if let Some(entrance) = self.entrance {
            if entrance.class != Class::Normal {
                let _ = write!(out, ",\"class\":\"{}\"", entrance.class.word());
            }
            if !entrance.waited.is_zero() {
                let _ = write!(out, ",\"waited_us\":{}", entrance.waited.as_micros());
            }
        }
        if let Some(status) = self.record.grpc {
            let _ = write!(out, ",\"grpc_status\":\"{}\"", status.word());
        }
        if let Some(hedged) = self.record.hedged {
            let _ = write!(out, ",\"hedge\":\"{}\"", hedged.word());
        }
        out.push_str(",\"attempts\":[");
        for (at, attempt) in self.record.attempts().enumerate() {
            out.push_str(if at == 0 { "{\"endpoint\":" } else { ",{\"endpoint\":" });
            json_string(&mut out, attempt.endpoint.spec.name.as_bytes());
            let since = attempt.started.since(self.record.started).as_micros();
            let failed = attempt.failed.map_or("", |reason| reason.word());
            let _ = write!(
                out,
                ",\"address\":\"{}\",\"after_us\":{since},\"failed\":\"{failed}\"",
                attempt.endpoint.spec.address
            );
            if attempt.chosen != Chosen::Balanced {
                let _ = write!(out, ",\"chosen\":\"{}\"", attempt.chosen.word());
            }
            if attempt.status != 0 {
                let _ = write!(out, ",\"status\":{}", attempt.status);
            }
            for (word, holds) in [("hedge", attempt.hedge), ("outrun", attempt.outrun)] {
                if holds {
                    let _ = write!(out, ",\"{word}\":true");
                }
            }
            if attempt.failed.is_some() {
                // Another attempt, or why there was none.
                let followed = at + 1 < self.record.attempts_made();
                let why_not = self.record.no_retry.map_or("", |why| why.word());
                let retry = if followed { "yes" } else { why_not };
                let _ = write!(out, ",\"retry\":\"{retry}\"");
            }
            out.push('}');
        }
        out.push_str("]}");
        out
    }

    /// Which rules had a say, and what those asked for in vain that come before them; nothing where there is one rule, or none.
    fn write_way(&self, out: &mut String) {
        let way = self.snapshot.trail(self.caller.entry(), self.head, self.link);
        if way.len() < 2 && way.iter().all(|passed| passed.lost.is_empty()) {
            return;
        }
        out.push_str(",\"way\":[");
        for (at, passed) in way.iter().enumerate() {
            let named = |rule| self.snapshot.rule_name(&Decision { rule, ..Decision::nowhere(passed.list) });
            let (list, rule) = named(passed.rule);
            out.push_str(if at == 0 { "{\"list\":" } else { ",{\"list\":" });
            json_string(out, list.as_bytes());
            out.push_str(",\"rule\":");
            json_string(out, rule.unwrap_or("").as_bytes());
            if passed.more > 0 {
                let _ = write!(out, ",\"lost_before\":{}", passed.more);
            }
            out.push_str(",\"lost\":[");
            for (at, (rule, why)) in passed.lost.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                json_string(out, format!("{}: {why}", named(Some(*rule)).1.unwrap_or("")).as_bytes());
            }
            out.push_str("]}");
        }
        out.push(']');
    }

    /// What was sent instead of what came, and which rules wanted it so.
    #[cold]
    fn write_changes(&self, changed: &Changed, out: &mut String) {
        let sent = changed.head(self.head);
        let others = [
            ("sent_authority", sent.authority, self.head.authority),
            ("sent_path", sent.path, self.head.path),
            ("location", &changed.location, b""),
        ];
        for (key, value, _) in others.into_iter().filter(|(_, value, came)| value != came) {
            let _ = write!(out, ",\"{key}\":");
            json_string(out, value);
        }
        if changed.injected.is_something() {
            let words: Vec<&str> = changed.injected.words().collect();
            let _ = write!(out, ",\"fault\":\"{}\"", words.join("+"));
        }
        if !changed.charge.limits.is_empty() {
            write_limits(&changed.charge, out);
        }
        if changed.by.is_empty() {
            return;
        }
        out.push_str(",\"changed_by\":[");
        for (at, (list, rule)) in changed.by.iter().enumerate() {
            let decision = Decision { rule: Some(*rule), ..Decision::nowhere(*list) };
            let (list, rule) = self.snapshot.rule_name(&decision);
            out.push_str(if at == 0 { "" } else { "," });
            json_string(out, format!("{list}: {}", rule.unwrap_or("")).as_bytes());
        }
        out.push(']');
    }
}

/// The limit that refused a request, and those that would have.
#[cold]
fn write_limits(charge: &Charge, out: &mut String) {
    if let Some(label) = charge.refused_by() {
        out.push_str(",\"rate_limit\":");
        json_string(out, label.as_bytes());
    }
    let mut dry = charge.dry_runs().peekable();
    if dry.peek().is_some() {
        out.push_str(",\"rate_limit_dry_run\":[");
        for (at, label) in dry.enumerate() {
            out.push_str(if at == 0 { "" } else { "," });
            json_string(out, label.as_bytes());
        }
        out.push(']');
    }
}
