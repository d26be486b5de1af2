//! The HTTP/1 machine against messages that are kept as files, and against what a fuzzer has found so far.
//!
//! A case is a file of bytes below `tests/http1/{accepted,malformed}` with a few lines in front:
//!
//! ```text
//! # request: why this case is here          (or response, response-to-head, -to-connect, -to-upgrade, chunked-body)
//! # verdict: accepted                       (or the word of a ParseError, or incomplete)
//! # | one line for each fact that is read   (accepted cases only)
//! # --
//! the bytes as they are on the wire, to the end of the file
//! ```

#![allow(clippy::panic, reason = "in a test a panic is the report")]

#[path = "http1/check/mod.rs"]
mod check;

use std::fs;
use std::path::{Path, PathBuf};

use check::feed::{Side, Verdict, in_pieces, in_whole};
use leno_core::http1::{BodyFraming, Limits, ParseError};
use leno_core::rng::Rng;

#[test]
fn malformed_messages_are_refused_however_they_are_split() {
    let cases = cases("malformed");
    assert!(cases.len() >= 80, "there are {} malformed cases", cases.len());
    for case in &cases {
        case.check();
    }
    // Every error has a case besides those that need more bytes than belong in a file; the unit tests have these.
    let elsewhere =
        ["head_too_large", "trailers_too_large", "chunk_extensions_too_long", "truncated", "target_too_long"];
    for error in ParseError::ALL {
        let found = cases.iter().any(|case| case.verdict == error.reason());
        assert!(found || elsewhere.contains(&error.reason()), "no case for {}", error.reason());
    }
}

#[test]
fn accepted_messages_are_read_the_same_however_they_are_split() {
    for case in cases("accepted") {
        case.check();
    }
}

#[test]
fn what_the_fuzzer_found_still_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    for folder in ["corpus", "found"] {
        for (target, check) in TARGETS {
            for path in files(&root.join(folder).join(target)) {
                check(&fs::read(&path).expect("a corpus file can be read"));
            }
        }
    }
}

/// Messages put together from words that matter, most of them nearly right.
#[test]
fn messages_made_of_words_hold_too() {
    let mut accepted = 0;
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let start = [REQUEST_LINES, STATUS_LINES][rng.below(2) as usize];
        let mut wire = pick(&mut rng, start).as_bytes().to_vec();
        wire.extend_from_slice(b"\r\n");
        if rng.one_in(2) {
            wire.extend_from_slice(b"Host: a\r\n");
        }
        for _ in 0..rng.below(5) {
            wire.extend_from_slice(pick(&mut rng, NAMES).as_bytes());
            wire.extend_from_slice(if rng.one_in(20) { b" : " } else { b": " });
            wire.extend_from_slice(pick(&mut rng, VALUES).as_bytes());
            wire.extend_from_slice(if rng.one_in(40) { b"\n" } else { b"\r\n" });
        }
        wire.extend_from_slice(b"\r\n");
        for _ in 0..rng.below(4) {
            wire.extend_from_slice(pick(&mut rng, CHUNKS).as_bytes());
        }
        if rng.one_in(8) {
            let at = rng.below(wire.len() as u64) as usize;
            wire[at] = rng.next_u64() as u8;
        }
        for (_, check) in TARGETS {
            check(&wire);
        }
        let limits = Limits::default();
        for side in [Side::Request, Side::Response(check::ANSWERS[0])] {
            accepted += usize::from(matches!(in_whole(side, &limits, &wire), Verdict::Accepted(_)));
        }
    }
    assert!(accepted > 500, "only {accepted} were accepted");
}

fn pick<'a>(rng: &mut Rng, words: &[&'a str]) -> &'a str {
    words[rng.below(words.len() as u64) as usize]
}

const REQUEST_LINES: &[&str] = &[
    "GET / HTTP/1.1",
    "HEAD /a HTTP/1.1",
    "POST /a?b=c HTTP/1.1",
    "PUT http://b:80/c HTTP/1.1",
    "GET http://b HTTP/1.1",
    "CONNECT b:443 HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "GET / HTTP/1.0",
];
const STATUS_LINES: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 ",
    "HTTP/1.1 100 Continue",
    "HTTP/1.1 101 Switching Protocols",
    "HTTP/1.1 503 \u{fc}",
];
const NAMES: &[&str] = &[
    "Content-Length",
    "transfer-encoding",
    "Connection",
    "Upgrade",
    "TE",
    "Trailer",
    "Expect",
    "Keep-Alive",
    "Host",
    "X-A",
    "X-B",
    "Date",
    "X-Request-Id",
];
const VALUES: &[&str] = &[
    "5",
    "0",
    "chunked",
    "close",
    "keep-alive",
    "upgrade",
    "x-a, date",
    "websocket",
    "trailers",
    "100-continue",
    "",
    " \t1 ",
];
const CHUNKS: &[&str] = &[
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "1;a\r\nx\r\n",
    "0\r\nX-T: 1\r\nHost: b\r\n\r\n",
    "hello",
    "a\r\n0123456789\r\n",
];

type Check = fn(&[u8]);

/// The fuzz targets and the function that each of them calls.
const TARGETS: [(&str, Check); 3] =
    [("http1_request", check::request), ("http1_response", check::response), ("http1_body", check::body)];

/// A message and what must come of it.
struct Case {
    path: PathBuf,
    side: Side,
    verdict: String,
    /// What is read from an accepted message.
    lines: Vec<String>,
    wire: Vec<u8>,
}

impl Case {
    fn read(path: PathBuf) -> Self {
        let bytes = fs::read(&path).expect("a case can be read");
        let mark = b"# --\n";
        let at = bytes.windows(mark.len()).position(|window| window == mark);
        let at = at.unwrap_or_else(|| panic!("{}: no line `# --`", path.display()));
        let head = std::str::from_utf8(&bytes[..at]).expect("what is before the bytes is text");
        let mut lines = head.lines();
        let side = match lines.next().and_then(|line| line.strip_prefix("# ")?.split_once(": ")) {
            Some(("request", _)) => Side::Request,
            Some(("response", _)) => Side::Response(check::ANSWERS[0]),
            Some(("response-to-head", _)) => Side::Response(check::ANSWERS[1]),
            Some(("response-to-connect", _)) => Side::Response(check::ANSWERS[2]),
            Some(("response-to-upgrade", _)) => Side::Response(check::ANSWERS[3]),
            Some(("chunked-body", _)) => Side::Body(BodyFraming::Chunked),
            _ => panic!("{}: the first line does not say what it is", path.display()),
        };
        let verdict = lines.next().and_then(|line| line.strip_prefix("# verdict: "));
        let verdict = verdict.unwrap_or_else(|| panic!("{}: no verdict", path.display())).to_owned();
        let lines = lines.filter_map(|line| line.strip_prefix("# | ")).map(str::to_owned).collect();
        let wire = bytes[at + mark.len()..].to_vec();
        Self { path, side, verdict, lines, wire }
    }

    fn check(&self) {
        let limits = Limits::default();
        let whole = in_whole(self.side, &limits, &self.wire);
        let (verdict, lines) = describe(&whole);
        assert_eq!(verdict, self.verdict, "{}", self.path.display());
        assert_eq!(lines, self.lines, "{}", self.path.display());
        for cut in 1..self.wire.len() {
            let split = in_pieces(self.side, &limits, &self.wire, &[cut]);
            assert_eq!(split, whole, "{} split at {cut}", self.path.display());
        }
        let every: Vec<usize> = (1..self.wire.len()).collect();
        assert_eq!(
            in_pieces(self.side, &limits, &self.wire, &every),
            whole,
            "{} by bytes",
            self.path.display()
        );
        for (_, check) in TARGETS {
            check(&self.wire);
        }
    }
}

fn describe(verdict: &Verdict) -> (&'static str, Vec<String>) {
    match verdict {
        Verdict::Refused(error) => (error.reason(), Vec::new()),
        Verdict::Incomplete => ("incomplete", Vec::new()),
        Verdict::Accepted(message) => {
            let mut lines = message.lines.clone();
            if !message.payload.is_empty() {
                lines.push(format!("payload {}", message.payload.escape_ascii()));
            }
            if message.left_over > 0 {
                lines.push(format!("left_over {}", message.left_over));
            }
            ("accepted", lines)
        }
    }
}

fn cases(folder: &str) -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http1").join(folder);
    files(&root).into_iter().map(Case::read).collect()
}

/// The files of a folder in the order of their names; none when there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it is listed").path()).collect();
    paths.sort();
    paths
}
