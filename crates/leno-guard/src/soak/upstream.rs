//! An upstream that does what each request's script says: answers, or breaks off in the middle of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::script::{Bodies, Mode, Script};
use super::wire::{Input, broken, chunked};

/// Starts listeners in a thread of their own, which serve until the process ends.
/// The second: closes every connection when it is told.
pub(super) fn start(count: usize) -> Result<(Vec<SocketAddr>, Arc<Notify>), String> {
    let hang_up = Arc::new(Notify::new());
    let told = hang_up.clone();
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
        socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        sockets.push(socket);
    }
    let addresses = sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        let bodies = Rc::new(Bodies::new());
        LocalSet::new().block_on(&runtime, async move {
            for socket in sockets {
                let Ok(listener) = TcpListener::from_std(socket) else { return };
                let (bodies, told) = (bodies.clone(), told.clone());
                tokio::task::spawn_local(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        let (bodies, told) = (bodies.clone(), told.clone());
                        tokio::task::spawn_local(async move {
                            tokio::select! {
                                // A proxy may leave at any time: that a client did is its reason.
                                _ = serve(stream, &bodies) => {}
                                () = told.notified() => {}
                            }
                        });
                    }
                });
            }
            std::future::pending::<()>().await;
        });
    });
    Ok((addresses, hang_up))
}

async fn serve(mut stream: TcpStream, bodies: &Bodies) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reading, mut writing) = stream.split();
    let mut input = Input::new(reading);
    let (mut body, mut out) = (Vec::new(), Vec::new());
    while let Some(head) = input.head().await? {
        let script = head.get("x-script").and_then(Script::read).ok_or_else(|| broken("no script"))?;
        if script.mode == Mode::ResetBefore {
            return reset(&stream);
        }
        input.body(&head, &mut body).await?;
        let whole = body == bodies.up(&script);
        let closes = !matches!(script.mode, Mode::Answer);
        answer(&script, whole, closes, bodies, &mut out);
        let cut = match script.mode {
            Mode::ResetHead => 20,
            // Behind the head, and before the last byte.
            Mode::ResetBody => out.len() - script.down.div_ceil(2).max(1),
            _ => out.len(),
        };
        writing.write_all(out.get(..cut).unwrap_or(&[])).await?;
        match script.mode {
            Mode::Answer => {}
            Mode::Close => return Ok(()),
            _ => return reset(&stream),
        }
    }
    Ok(())
}

fn answer(script: &Script, whole: bool, closes: bool, bodies: &Bodies, out: &mut Vec<u8>) {
    out.clear();
    let status = if whole { "200 OK" } else { "418 Another Body" };
    let framing = if script.down_chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {}", script.down)
    };
    let connection = if closes { "Connection: close\r\n" } else { "" };
    let head = format!("HTTP/1.1 {status}\r\nX-Nonce: {:x}\r\n{connection}{framing}\r\n\r\n", script.nonce);
    out.extend_from_slice(head.as_bytes());
    if script.down_chunked {
        chunked(bodies.down(script), out);
    } else {
        out.extend_from_slice(bodies.down(script));
    }
}

/// The other side sees a reset and not an end.
fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO))
}
