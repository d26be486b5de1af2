//! "Did you mean …?"

/// Texts longer than this are not compared, in characters: they are no slip of a name.
const COMPARED_CHARS_MAX: usize = 64;

/// Candidates beyond this many are not looked at: a hint is not worth a second of waiting.
const CANDIDATES_MAX: usize = 1000;

/// The candidate that `text` was most likely meant to be: at most one slip in three characters (a letter wrong,
/// missing, added, or two swapped), case ignored; else the only one that it begins.
pub(crate) fn nearest<'c>(text: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let wanted: Vec<char> = text.to_lowercase().chars().collect();
    if wanted.is_empty() || wanted.len() > COMPARED_CHARS_MAX {
        return None;
    }
    let slips_max = (wanted.len() / 3).max(1);
    let candidates: Vec<&str> = candidates.into_iter().take(CANDIDATES_MAX).collect();
    let near = candidates
        .iter()
        .filter_map(|candidate| {
            let letters: Vec<char> = candidate.to_lowercase().chars().take(COMPARED_CHARS_MAX + 1).collect();
            if letters.len().abs_diff(wanted.len()) > slips_max {
                return None;
            }
            let slips = distance(&wanted, &letters);
            (slips <= slips_max && slips < letters.len()).then_some((slips, *candidate))
        })
        .min();
    if let Some((_, candidate)) = near {
        return Some(candidate);
    }
    let mut begun = candidates.iter().filter(|candidate| text.len() >= 3 && candidate.starts_with(text));
    match (begun.next(), begun.next()) {
        (Some(candidate), None) => Some(candidate),
        _ => None,
    }
}

/// `did you mean "candidate"?`, when one is near enough.
pub(crate) fn did_you_mean<'c>(text: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    nearest(text, candidates).map(|candidate| format!("did you mean \"{candidate}\"?"))
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut two_back = vec![0; b.len() + 1];
    let mut back: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, &y) in b.iter().enumerate() {
            row[j + 1] = (back[j] + usize::from(x != y)).min(back[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                row[j + 1] = row[j + 1].min(two_back[j - 1] + 1);
            }
        }
        two_back = std::mem::replace(&mut back, row);
    }
    back[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_slips_and_nothing_far() {
        let fields = ["port", "path", "protocol", "endpoints", "instances"];
        for (typed, meant) in [
            ("port_", Some("port")),
            ("prot", Some("port")),
            ("PORT", Some("port")),
            ("protocl", Some("protocol")),
            ("endpoint", Some("endpoints")),
            ("instnaces", Some("instances")),
            ("replicas", None),
            ("prot", Some("port")),
            ("proto", Some("protocol")),
            ("http", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, fields), meant, "{typed}");
        }
        assert_eq!(nearest(&"port".repeat(10_000), fields), None);
    }
}
