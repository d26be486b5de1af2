//! Where Leno does not do what a case wants: the names of the cases, as docs/conformance.md lists and explains them.

/// The cases' names, from the document's list of deviations.
pub(crate) fn known() -> Vec<&'static str> {
    const DOCUMENT: &str = include_str!("../../../../docs/conformance.md");
    /// The heading of the list; it ends with the next heading.
    const HEADING: &str = "## Deviations\n";
    let Some((_, list)) = DOCUMENT.split_once(HEADING) else { panic!("no {HEADING:?}") };
    let list = list.split("\n## ").next().unwrap_or_default();
    // | `section title` | why |
    let name = |line: &'static str| line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name);
    list.lines().filter_map(name).collect()
}
