//! Bulk that nobody looks into: a client says how many bytes it wants, and gets them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ANSWER;

/// Has so many bytes sent.
pub(super) async fn download(stream: &mut TcpStream, bytes: u64) -> Result<(), String> {
    tokio::time::timeout(ANSWER, downloaded(stream, bytes)).await.map_err(|_| "no answer in time")?
}

async fn downloaded(stream: &mut TcpStream, bytes: u64) -> Result<(), String> {
    let text = |error: std::io::Error| format!("bulk: {error}");
    // It begins with a byte that no protocol begins with.
    stream.write_all(&[&[0_u8][..], &bytes.to_be_bytes()].concat()).await.map_err(text)?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < bytes {
        let count = stream.read(&mut buffer).await.map_err(text)?;
        let piece = buffer.get(..count).filter(|piece| !piece.is_empty()).ok_or("closed within bulk")?;
        if piece.iter().zip(at..).any(|(byte, place)| *byte != byte_at(place)) {
            return Err(format!("a wrong byte behind {at}"));
        }
        at += count as u64;
    }
    if at == bytes { Ok(()) } else { Err("more bytes than asked for".into()) }
}

/// Sends what is asked for until the connection ends.
pub(super) async fn serve(mut stream: TcpStream) {
    let mut order = [0; 9];
    while stream.read_exact(&mut order).await.is_ok() {
        let [_, bytes @ ..] = order;
        let (bytes, mut at) = (u64::from_be_bytes(bytes), 0);
        while at < bytes {
            let end = bytes.min(at + PIECE_BYTES as u64);
            let piece: Vec<u8> = (at..end).map(byte_at).collect();
            if stream.write_all(&piece).await.is_err() {
                return;
            }
            at = end;
        }
    }
}

/// 251 is prime, so that a piece in a wrong place is seen.
fn byte_at(place: u64) -> u8 {
    (place % 251) as u8
}

const PIECE_BYTES: usize = 256 * 1024;
