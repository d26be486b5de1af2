//! Where Leno does not do what a case wants: the names of the cases, as docs/conformance.md lists and explains them.

/// The heading of the list for what clients send.
pub(crate) const AS_A_SERVER: &str = "## Deviations as a server\n";
/// The heading of the list for what applications answer.
pub(crate) const AS_A_CLIENT: &str = "## Deviations as a client\n";

/// The names of cases in the list under a heading, which ends with the next one.
pub(crate) fn known(heading: &str) -> Vec<&'static str> {
    const DOCUMENT: &str = include_str!("../../../../docs/conformance.md");
    let Some((_, list)) = DOCUMENT.split_once(heading) else { panic!("no {heading:?}") };
    let list = list.split("\n## ").next().unwrap_or_default();
    // | `section title`, `section title` | why |
    let rows = list.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    rows.flat_map(|(names, _)| names.split("`, `")).collect()
}

/// Fails when something deviates that is not in the list, or when something in the list does not deviate any more.
pub(crate) fn are_explained(whose: &str, heading: &str, found: &[(String, String)]) {
    let known = known(heading);
    let new: Vec<_> = found.iter().filter(|(name, _)| !known.contains(&name.as_str())).collect();
    assert!(new.is_empty(), "{whose}: deviations that docs/conformance.md does not explain: {new:#?}");
    let gone: Vec<_> = known.iter().filter(|known| !found.iter().any(|(name, _)| name == *known)).collect();
    assert!(gone.is_empty(), "{whose}: explained, and no deviation any more: {gone:#?}");
}
