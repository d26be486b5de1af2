//! Applications that leave at every stage of an answer.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Leave;
use crate::way::{Application, Way, path, read_head};

/// What an application has answered when it leaves, and what its client is told then. Where the head is whole, the client may
/// have got it, or a word about the cut, or nothing when both came at once: it sees a connection that is cut.
const STAGES: [(&str, &[u8], &str); 9] = [
    ("nothing", b"", "HTTP/1.1 502 "),
    ("half a status line", b"HTTP/1.1 20", "HTTP/1.1 502 "),
    ("a status line", b"HTTP/1.1 200 OK\r\n", "HTTP/1.1 502 "),
    ("half a field", b"HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 502 "),
    ("an interim answer", b"HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 "),
    ("a head and no body", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", ""),
    ("half a body", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", ""),
    ("half a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello", ""),
    ("no last chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", ""),
];

/// Connections to the application that a proxy keeps for the next request.
const KEPT: usize = 4;

/// Answers by the path: `/STAGE-LEAVE` leaves there, everything else is answered.
fn leaves() -> Application {
    Arc::new(|mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let numbers: Vec<usize> =
                path(&head).trim_start_matches('/').split('-').filter_map(|part| part.parse().ok()).collect();
            if let [stage, leave] = numbers[..] {
                stream.write_all(STAGES[stage].1).ok();
                if let Some(mut half) = Leave::ALL[leave].from(stream) {
                    // Whoever is told that no more will come leaves too.
                    half.read_to_end(&mut Vec::new()).ok();
                }
                return;
            }
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").is_err() {
                return;
            }
        }
    })
}

fn each(application: &Application, test: impl Fn(&Way)) {
    test(&Way::single(application));
    test(&Way::pair(application));
}

#[test]
fn an_application_that_leaves_at_any_stage_is_seen_and_leaves_nothing() {
    each(&leaves(), |way| {
        way.serves();
        let before = way.descriptors();
        for (at, (stage, _, told)) in STAGES.into_iter().enumerate() {
            for (index, leave) in Leave::ALL.into_iter().enumerate() {
                let answer = way.ask(&format!("/{at}-{index}"));
                // A reset may take with it what was sent before.
                let lost = matches!(leave, Leave::Reset) && answer.starts_with("HTTP/1.1 502 ");
                assert!(answer.starts_with(told) || lost, "{} {stage} {leave:?}: {answer:?}", way.name);
                let good = ["HTTP/1.1 103 ", "HTTP/1.1 200 ", "HTTP/1.1 502 "];
                let good = answer.is_empty() || good.iter().any(|good| answer.starts_with(good));
                assert!(good, "{} {stage} {leave:?}: {answer:?}", way.name);
                let whole = answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("0\r\n\r\n");
                assert!(!whole, "{} {stage} {leave:?}: a part is taken for the whole", way.name);
            }
        }
        way.holds_no_more_than(&before, KEPT);
        way.serves();
    });
}

#[test]
fn an_application_that_leaves_before_it_is_asked_costs_nobody_an_answer() {
    // Every other connection is closed at once.
    let count = Arc::new(AtomicUsize::new(0));
    let application: Application = Arc::new(move |mut stream| {
        if count.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
            drop(Leave::Reset.from(stream));
            return;
        }
        if read_head(&mut stream).is_some() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").ok();
        }
    });
    each(&application, |way| {
        for _ in 0..20 {
            let answer = way.ask("/");
            // A GET may be asked again; if it is not, its client is told that it was not answered.
            let told = answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.1 50");
            assert!(told, "{}: {answer:?}", way.name);
        }
    });
}

#[test]
fn an_application_that_answers_before_it_has_read_is_heard() {
    let application: Application = Arc::new(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
        // It reads none of the body, and closes: the kernel makes a reset of that.
    });
    each(&application, |way| {
        let mut stream = way.connect();
        stream
            .write_all(
                b"POST / HTTP/1.1\r\nHost: server\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n",
            )
            .unwrap();
        for _ in 0..100 {
            if stream.write_all(&[b'x'; 10_000]).is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        let answer = String::from_utf8_lossy(&answer);
        // The reset may overtake the answer on the application's side; then there is a word about that.
        let told = answer.starts_with("HTTP/1.1 413 ") || answer.starts_with("HTTP/1.1 502 ");
        assert!(told, "{}: {answer:?}", way.name);
    });
}
