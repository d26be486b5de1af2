//! Just enough HTTP/1.1 to check a proxy with: written apart from Leno's own parser, so that the two cannot be wrong
//! in the same way.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// No head here is longer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// One read.
const READ_BYTES: usize = 64 * 1024;

/// The reading side of a connection.
pub(super) struct Input<R> {
    stream: R,
    buffer: Vec<u8>,
    /// Where unread bytes begin.
    at: usize,
}

/// A head, with names in lower case.
pub(super) struct Head {
    pub(super) first_line: String,
    fields: Vec<(String, String)>,
}

impl Head {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    /// The other side closes after this message.
    pub(super) fn closes(&self) -> bool {
        self.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(super) const fn new(stream: R) -> Self {
        Self { stream, buffer: Vec::new(), at: 0 }
    }

    /// The next head; `None` when the other side closed between two messages.
    pub(super) async fn head(&mut self) -> io::Result<Option<Head>> {
        let mut first_line = String::new();
        let mut fields = Vec::new();
        let mut bytes = 0;
        loop {
            let line = match self.line().await {
                Ok(line) => line,
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof
                        && bytes == 0
                        && self.rest().is_empty() =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            bytes += line.len();
            if bytes > HEAD_BYTES_MAX {
                return Err(broken("a head without an end"));
            }
            if first_line.is_empty() {
                first_line = line;
            } else if line.is_empty() {
                return Ok(Some(Head { first_line, fields }));
            } else {
                let (name, value) = line.split_once(':').ok_or_else(|| broken("a field without a colon"))?;
                fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }

    /// The body behind a head that has one.
    pub(super) async fn body(&mut self, head: &Head, body: &mut Vec<u8>) -> io::Result<()> {
        body.clear();
        if !head.is_chunked() {
            let length = head.get("content-length").unwrap_or("0");
            let length = length.parse().map_err(|_| broken("a length that is no number"))?;
            return self.take(length, body).await;
        }
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).map_err(|_| broken("a chunk's size is no number"))?;
            if size == 0 {
                break;
            }
            self.take(size, body).await?;
            if !self.line().await?.is_empty() {
                return Err(broken("a chunk is longer than it says"));
            }
        }
        while !self.line().await?.is_empty() {}
        Ok(())
    }

    /// Bytes that came and were not asked for yet.
    pub(super) fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or(&[])
    }

    async fn take(&mut self, bytes: usize, into: &mut Vec<u8>) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            if self.rest().is_empty() {
                self.fill().await?;
            }
            let taken = self.rest().len().min(left);
            into.extend_from_slice(self.rest().get(..taken).unwrap_or(&[]));
            self.at += taken;
            left -= taken;
        }
        Ok(())
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.rest().iter().position(|byte| *byte == b'\n') {
                let line = self.rest().get(..end).unwrap_or(&[]);
                let line = line.strip_suffix(b"\r").ok_or_else(|| broken("a line without CR"))?;
                let line = String::from_utf8_lossy(line).into_owned();
                self.at += end + 1;
                return Ok(line);
            }
            if self.rest().len() > HEAD_BYTES_MAX {
                return Err(broken("a line without an end"));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.rest().is_empty() {
            self.buffer.clear();
            self.at = 0;
        }
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Not HTTP: unlike a connection that broke, this is never allowed.
pub(super) fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Payload in chunks of an odd size.
pub(super) fn chunked(payload: &[u8], out: &mut Vec<u8>) {
    for piece in payload.chunks(1 + payload.len() / 3) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
}
