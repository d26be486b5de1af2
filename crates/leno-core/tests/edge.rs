//! What strangers say before anybody knows them, against what a fuzzer has found so far and against made-up bytes.

#[path = "edge/check.rs"]
mod check;

use std::fs;
use std::path::Path;

use leno_core::rng::Rng;

#[test]
fn what_the_fuzzer_found_still_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut inputs = 0;
    for (target, check) in
        [("proxy_protocol", check::proxy_protocol as fn(&[u8])), ("client_hello", check::client_hello)]
    {
        for folder in [root.join("corpus").join(target), root.join("found").join(target)] {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for entry in entries {
                check(&fs::read(entry.expect("a folder can be listed").path()).expect("a file can be read"));
                inputs += 1;
            }
        }
    }
    assert!(inputs >= 6, "there are {inputs} inputs");
}

#[test]
fn made_up_bytes_are_decided_the_same_however_they_come() {
    let mut rng = Rng::new(21);
    let starts: [&[u8]; 5] = [
        b"",
        b"PROXY TCP4 1.2.3.4 ",
        b"PROXY TCP6 ::1 ::",
        b"\r\n\r\n\0\r\nQUIT\n\x21",
        b"\x16\x03\x01\0\x30\x01\0\0\x2c\x03\x03",
    ];
    for _ in 0..20_000 {
        let mut input = starts[rng.below(5) as usize].to_vec();
        for _ in 0..rng.below(80) {
            input.push(if rng.one_in(3) {
                b" \r\n0:.19"[rng.below(9) as usize % 8]
            } else {
                rng.next_u64() as u8
            });
        }
        check::proxy_protocol(&input);
        check::client_hello(&input);
    }
}
