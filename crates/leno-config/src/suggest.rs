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
            let slips = distance(&wanted, &letters, slips_max)?;
            (slips < letters.len()).then_some((slips, *candidate))
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

/// Optimal string alignment distance; `None` when it is more than `max`.
fn distance(a: &[char], b: &[char], max: usize) -> Option<usize> {
    let mut rows = [const { [0_usize; COMPARED_CHARS_MAX + 2] }; 3];
    let [mut two_back, mut back, mut row] = rows.each_mut();
    for (j, cell) in back.iter_mut().enumerate().take(b.len() + 1) {
        *cell = j;
    }
    for (i, &x) in a.iter().enumerate() {
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            row[j + 1] = (back[j] + usize::from(x != y)).min(back[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                row[j + 1] = row[j + 1].min(two_back[j - 1] + 1);
            }
        }
        // Two rows, because a swap reaches over one.
        if row[..=b.len()].iter().chain(&back[..=b.len()]).all(|slips| *slips > max) {
            return None;
        }
        (two_back, back, row) = (back, row, two_back);
    }
    Some(back[b.len()]).filter(|slips| *slips <= max)
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
