//! The pages about tasks: every example in them is a whole mesh file, and a good one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

use std::fs;
use std::path::Path;

use leno_config::native;

#[test]
fn every_example_is_a_mesh_file_without_warnings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tasks");
    let mut pages = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let page = entry.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        let name = page.file_name().unwrap().to_str().unwrap();
        let blocks: Vec<&str> =
            text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!blocks.is_empty(), "{name} has no example");
        for block in blocks {
            match native::parse(name, block) {
                Ok(mesh) => assert_eq!(mesh.warnings, [], "{name}:\n{block}"),
                Err(diagnostics) => panic!("{name}:\n{block}\n{diagnostics}"),
            }
        }
        pages += 1;
    }
    assert!(pages > 0);
}
