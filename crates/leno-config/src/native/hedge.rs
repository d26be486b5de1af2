//! Second attempts beside slow ones.

use leno_core::spec::{
    HEDGE_PERCENT, HEDGE_PERCENT_MAX, HEDGE_QUANTILE_MAX, HEDGE_QUANTILE_MIN, HedgeAfter, HedgeSpec, Protocol,
};

use super::fields::{HEDGE, HEDGE_WORDS, Kind};
use super::read::{Fields, Reader};
use super::value;
use crate::diagnostic::Problem;
use crate::yaml::{Node, Value};

/// Reads `hedge` of a service or route.
pub(crate) fn read(
    fields: &mut Fields<'_>,
    protocol: Protocol,
    reader: &mut Reader<'_>,
) -> Option<HedgeSpec> {
    let entry = fields.entry("hedge")?;
    if protocol == Protocol::Tcp {
        let problem = Problem::error(entry.key_span, "`hedge` has no meaning with `protocol: tcp`");
        reader.error(problem.hint("bytes have no requests that could be sent twice"));
        return None;
    }
    let node = &entry.value;
    match &node.value {
        Value::Map(_) => map(node, reader),
        Value::Scalar(scalar) if HEDGE_WORDS.iter().any(|(word, _)| *word == scalar.text) => {
            Some(HedgeSpec::NONE)
        }
        _ => after(node, reader).map(|after| HedgeSpec { after, percent: HEDGE_PERCENT }),
    }
}

fn map(node: &Node, reader: &mut Reader<'_>) -> Option<HedgeSpec> {
    let mut fields = reader.fields(node, &HEDGE)?;
    let after = fields.get("after").map_or(Some(HedgeSpec::NONE.after), |node| after(node, reader));
    let percent = fields.get("percent").map_or(Some(HEDGE_PERCENT), |node| {
        let parse = |text: &str| value::number(text, "a percentage", 1, HEDGE_PERCENT_MAX);
        reader.number(node, Kind::Count(HEDGE_PERCENT_MAX), parse)
    });
    fields.finish();
    Some(HedgeSpec { after: after?, percent: percent? })
}

/// `p95`, or a time.
fn after(node: &Node, reader: &mut Reader<'_>) -> Option<HedgeAfter> {
    let text = reader.text(node, Kind::Quantile)?;
    let digits = text.strip_prefix('p').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let read = match digits {
        Some(digits) => value::number(digits, "a percentile", HEDGE_QUANTILE_MIN, HEDGE_QUANTILE_MAX)
            .map(HedgeAfter::Quantile),
        None => value::delay(text).map(HedgeAfter::Time),
    };
    reader.checked(node.span, read)
}
