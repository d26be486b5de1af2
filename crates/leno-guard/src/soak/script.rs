//! What a request of the soak test asks for, written into its head so that the upstream can do it and the client can
//! check it: every body follows from the request's nonce, so no answer can pass for another's.

use leno_core::rng::Rng;

/// What the upstream does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Answers.
    Answer,
    /// Answers, says that it will close, and closes.
    Close,
    /// Answers, says that it will close, and resets at once.
    ResetAfter,
    /// Resets before it says anything.
    ResetBefore,
    /// Resets within the head.
    ResetHead,
    /// Resets within the body.
    ResetBody,
}

const MODES: &[(Mode, &str)] = &[
    (Mode::Answer, "answer"),
    (Mode::Close, "close"),
    (Mode::ResetAfter, "reset-after"),
    (Mode::ResetBefore, "reset-before"),
    (Mode::ResetHead, "reset-head"),
    (Mode::ResetBody, "reset-body"),
];

impl Mode {
    /// The client must get the whole right answer, whatever happens around it.
    pub(super) const fn must_succeed(self) -> bool {
        matches!(self, Self::Answer | Self::Close)
    }
}

/// One request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) mode: Mode,
    pub(super) nonce: u64,
    /// Bytes of the answer's body.
    pub(super) down: usize,
    /// The answer comes in chunks.
    pub(super) down_chunked: bool,
    /// Bytes of the request's body; `None`: a GET.
    pub(super) up: Option<usize>,
    /// The request's body comes in chunks.
    pub(super) up_chunked: bool,
}

impl Script {
    /// Any request that a client might make.
    pub(super) fn random(rng: &mut Rng) -> Self {
        let mode = match rng.below(100) {
            0..90 => Mode::Answer,
            90..94 => Mode::Close,
            94 => Mode::ResetAfter,
            95 | 96 => Mode::ResetBefore,
            97 => Mode::ResetHead,
            _ => Mode::ResetBody,
        };
        let up = (rng.below(100) < 15).then(|| size(rng, 256 * 1024));
        Self {
            mode,
            nonce: rng.next_u64(),
            down: size(rng, 1024 * 1024),
            down_chunked: rng.one_in(4),
            up,
            up_chunked: rng.one_in(2),
        }
    }

    /// A small GET that must succeed.
    pub(super) fn small(rng: &mut Rng) -> Self {
        let nonce = rng.next_u64();
        Self { mode: Mode::Answer, nonce, down: 128, down_chunked: false, up: None, up_chunked: false }
    }

    /// The request's head.
    pub(super) fn head(&self) -> String {
        let Self { nonce, down, .. } = self;
        let mode = MODES.iter().find(|(mode, _)| *mode == self.mode).map_or("", |(_, name)| name);
        let framing = match (self.up, self.up_chunked) {
            (None, _) => String::new(),
            (Some(_), true) => "Transfer-Encoding: chunked\r\n".to_owned(),
            (Some(bytes), false) => format!("Content-Length: {bytes}\r\n"),
        };
        let method = if self.up.is_some() { "POST" } else { "GET" };
        let up = self.up.unwrap_or(0);
        format!(
            "{method} /soak/{nonce:x}?q=1 HTTP/1.1\r\nHost: app\r\nUser-Agent: soak\r\nAccept: */*\r\n\
             X-Script: {mode} {nonce:x} {down} {} {up}\r\n{framing}\r\n",
            u8::from(self.down_chunked)
        )
    }

    /// The script in a request's head, as far as the upstream needs it.
    pub(super) fn read(value: &str) -> Option<Self> {
        let mut words = value.split_whitespace();
        let mode = words.next()?;
        let mode = MODES.iter().find(|(_, name)| *name == mode)?.0;
        let nonce = u64::from_str_radix(words.next()?, 16).ok()?;
        let down = words.next()?.parse().ok()?;
        let down_chunked = words.next()? == "1";
        let up = words.next()?.parse().ok()?;
        Some(Self { mode, nonce, down, down_chunked, up: Some(up), up_chunked: false })
    }
}

/// Mostly small, sometimes as large as it may be.
fn size(rng: &mut Rng, most: u64) -> usize {
    let most = match rng.below(20) {
        0..12 => 256,
        12..17 => 8 * 1024,
        17..19 => 64 * 1024,
        _ => most,
    };
    rng.below(most + 1) as usize
}

/// Bytes that look like chance; every nonce begins elsewhere in them.
pub(super) struct Bodies(Vec<u8>);

impl Bodies {
    pub(super) fn new() -> Self {
        let mut rng = Rng::new(7);
        Self((0..(STARTS + BODY_BYTES_MAX) / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect())
    }

    /// The answer's body.
    pub(super) fn down(&self, script: &Script) -> &[u8] {
        self.slice(script.nonce, script.down)
    }

    /// The request's body, which is another one.
    pub(super) fn up(&self, script: &Script) -> &[u8] {
        self.slice(script.nonce.rotate_left(32), script.up.unwrap_or(0))
    }

    fn slice(&self, nonce: u64, bytes: usize) -> &[u8] {
        let start = (nonce % STARTS as u64) as usize;
        self.0.get(start..start + bytes).unwrap_or(&[])
    }
}

const STARTS: usize = 1 << 20;
const BODY_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use leno_core::rng::Rng;

    use super::Script;

    #[test]
    fn the_upstream_reads_what_the_client_wrote() {
        let mut rng = Rng::new(1);
        for _ in 0..100 {
            let script = Script::random(&mut rng);
            let head = script.head();
            let line = head.lines().find_map(|line| line.strip_prefix("X-Script: ")).unwrap();
            let read = Script::read(line).unwrap();
            let wanted = Script { up: Some(script.up.unwrap_or(0)), up_chunked: false, ..script };
            assert_eq!(read, wanted);
        }
    }
}
