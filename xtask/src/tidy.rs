//! The rules of style that a program can check. Each rule is one function that adds problems; a problem names the
//! place, what is wrong and what to do. What clippy and rustc check already is not repeated here.

mod arrows;
mod docs;
mod source;
mod text;

use crate::shell::{self, Findings};

/// Checks every rule.
pub(crate) fn check() -> Findings {
    let mut findings = Findings::default();
    match text::Tree::read(&shell::root()) {
        Ok(tree) => {
            source::check(&tree, &mut findings);
            docs::check(&tree, &mut findings);
        }
        Err(error) => findings.problem(error),
    }
    arrows::check(&mut findings);
    findings
}
