//! The same application in HTTP/2.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};

use crate::origin::{Ledger, Origin};

pub(crate) fn start(places: usize) -> Origin {
    let ledger = Ledger::new();
    let listen = |_| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let ledger = ledger.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, ledger.clone()));
                }
            });
        });
        address
    };
    Origin { addresses: (0..places).map(listen).collect(), ledger }
}

async fn serve(stream: TcpStream, ledger: Arc<Mutex<Ledger>>) {
    stream.set_nodelay(true).unwrap();
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, ledger.clone()));
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    ledger: Arc<Mutex<Ledger>>,
) -> Option<()> {
    let (parts, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.ok()?;
        stream.flow_control().release_capacity(data.len()).ok()?;
        body.extend_from_slice(&data);
    }
    let time = ledger.lock().unwrap().take(parts.uri.path(), &String::from_utf8_lossy(&body));
    tokio::select! {
        _ = poll_fn(|cx| respond.poll_reset(cx)) => {
            ledger.lock().unwrap().cancelled += 1;
            return None;
        }
        () = tokio::time::sleep(time) => {}
    }
    let head = Response::builder().header("content-length", 5).body(()).ok()?;
    respond.send_response(head, false).ok()?.send_data(Bytes::from_static(b"hello"), true).ok()
}

/// A call of gRPC with a message of these bytes that comes behind its head after `pause`; the status of its answer.
pub(crate) async fn call(
    send: &h2::client::SendRequest<Bytes>,
    path: &str,
    pause: std::time::Duration,
) -> http::StatusCode {
    let request = Request::post(format!("http://web{path}")).header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(()).unwrap();
    let (response, mut stream) = send.clone().ready().await.unwrap().send_request(request, false).unwrap();
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    stream.send_data(Bytes::from_static(b"\0\0\0\0\x05hello"), true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    head.status
}

/// Runs a test of a client that speaks HTTP/2 to `address`.
pub(crate) fn client<T>(
    address: std::net::SocketAddr,
    test: impl AsyncFnOnce(h2::client::SendRequest<Bytes>) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let result = test(send).await;
        connection.abort();
        result
    })
}
