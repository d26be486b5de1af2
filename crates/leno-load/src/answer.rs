//! What an answer must be, and where in it we are.

/// One answer, read in pieces.
pub(crate) struct Answer {
    /// The head's bytes so far, when it came in pieces.
    head: Vec<u8>,
    /// Body bytes so far; `None` within the head.
    at: Option<usize>,
}

impl Answer {
    pub(crate) fn new() -> Self {
        Self { head: Vec::new(), at: None }
    }

    /// Takes the next bytes. `Ok(true)`: the answer is complete and was right; then the next one can be taken.
    /// Anything that is not exactly a 200 with this body is an error.
    #[inline]
    pub(crate) fn take(&mut self, bytes: &[u8], body: &[u8]) -> Result<bool, String> {
        let (at, rest) = match self.at {
            Some(at) => (at, bytes),
            None if self.head.is_empty() => match check_head(bytes, body.len())? {
                Some(end) => (0, &bytes[end..]),
                None => {
                    self.head.extend_from_slice(bytes);
                    return Ok(false);
                }
            },
            None => return self.take_pieces(bytes, body),
        };
        let end = at + rest.len();
        if end > body.len() {
            return Err(format!("{} bytes after the end of the answer", end - body.len()));
        }
        if rest != &body[at..end] {
            return Err(format!("a wrong byte in the body between {at} and {end}"));
        }
        let complete = end == body.len();
        self.at = if complete { None } else { Some(end) };
        Ok(complete)
    }

    /// The head came in pieces: put together, read again.
    #[cold]
    fn take_pieces(&mut self, bytes: &[u8], body: &[u8]) -> Result<bool, String> {
        let mut whole = std::mem::take(&mut self.head);
        if whole.len() > HEAD_BYTES_MAX {
            return Err(format!("a head of more than {HEAD_BYTES_MAX} bytes"));
        }
        whole.extend_from_slice(bytes);
        self.take(&whole, body)
    }
}

/// Checks a head; where it ends, or `None` when more is needed.
fn check_head(bytes: &[u8], body_bytes: usize) -> Result<Option<usize>, String> {
    let mut length = None;
    let mut start = 0;
    while let Some(size) = bytes[start..].iter().position(|&b| b == b'\n') {
        let line = &bytes[start..start + size];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if start == 0 {
            if !line.starts_with(b"HTTP/1.1 200 ") {
                return Err(format!("not 200 but `{}`", String::from_utf8_lossy(line)));
            }
        } else if line.is_empty() {
            if length != Some(body_bytes) {
                return Err(format!("content-length {length:?}, not {body_bytes}"));
            }
            return Ok(Some(start + size + 1));
        } else if line.len() > CONTENT_LENGTH.len()
            && line[..CONTENT_LENGTH.len()].eq_ignore_ascii_case(CONTENT_LENGTH)
        {
            let value = std::str::from_utf8(&line[CONTENT_LENGTH.len()..]).unwrap_or_default();
            if length.is_some() {
                return Err("content-length twice".into());
            }
            length = value.trim().parse().ok();
        }
        start += size + 1;
    }
    Ok(None)
}

const CONTENT_LENGTH: &[u8] = b"content-length:";
/// No proxy here answers with more.
const HEAD_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::Answer;

    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 4\r\n\r\nbody";

    #[test]
    fn a_right_answer_in_any_pieces() {
        for cut in 0..=GOOD.len() {
            let mut answer = Answer::new();
            let first = answer.take(&GOOD[..cut], b"body").unwrap();
            assert_eq!(first, cut == GOOD.len());
            if !first {
                assert!(answer.take(&GOOD[cut..], b"body").unwrap(), "cut at {cut}");
            }
            assert!(answer.take(GOOD, b"body").unwrap(), "the next one");
        }
    }

    #[test]
    fn wrong_answers_are_named() {
        for (bytes, said) in [
            (&b"HTTP/1.1 503 No\r\n"[..], "not 200"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "content-length None"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "content-length Some(5)"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 4\r\n\r\n", "twice"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbo_y", "wrong byte"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody+", "1 bytes after"),
        ] {
            let error = Answer::new().take(bytes, b"body").unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_head_without_end_is_an_error() {
        let mut answer = Answer::new();
        let line = [b'a'; 1024];
        answer.take(b"HTTP/1.1 200 OK\r\n", b"body").unwrap();
        assert!((0..20).any(|_| answer.take(&line, b"body").is_err()));
    }
}
