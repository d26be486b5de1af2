use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Carried, Passage, carry};
use crate::body::{Moved, PumpError};
use crate::buffer::{PIPES_MAX, Stock};
use crate::io::Stream;

/// Both ends of a connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// A sender, the two sockets between which bytes are carried, and a receiver.
async fn chain(stock: &Stock) -> (TcpStream, Passage, Stream, TcpStream) {
    let ((sender, from), (to, receiver)) = (connection().await, connection().await);
    let from = Passage { stream: Rc::new(Stream::Plain(from)), stock: stock.clone() };
    (sender, from, Stream::Plain(to), receiver)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn every_byte_arrives_in_its_place_and_then_the_end() {
    let stock = Stock::default();
    let (mut sender, from, to, mut receiver) = chain(&stock).await;
    let moved = Moved::default();
    let sent = bytes(20 << 20);
    let send = async {
        sender.write_all(&sent).await.unwrap();
        sender.shutdown().await.unwrap();
    };
    let receive = async {
        let mut got = vec![0; sent.len()];
        receiver.read_exact(&mut got).await.unwrap();
        got
    };
    let ((), got, carried) = tokio::join!(send, receive, carry(&from, &to, &moved));
    assert!(got == sent, "a wrong byte");
    assert_eq!(moved.bytes.get(), sent.len() as u64);
    // A last small piece may have come by itself.
    match carried.unwrap() {
        Carried::End => {}
        Carried::NoBulk => assert_eq!(carry(&from, &to, &moved).await.unwrap(), Carried::End),
    }
    assert_eq!(stock.pipes(), (0, 1), "the pipe is kept for the next one");
}

#[tokio::test]
async fn few_bytes_are_no_bulk() {
    let stock = Stock::default();
    let (mut sender, from, to, mut receiver) = chain(&stock).await;
    sender.write_all(b"hello").await.unwrap();
    assert_eq!(carry(&from, &to, &Moved::default()).await.unwrap(), Carried::NoBulk);
    let mut got = [0; 5];
    receiver.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
}

#[tokio::test]
async fn pipes_have_a_limit_and_waiting_takes_none() {
    let stock = Stock::default();
    let (mut sender, from, to, _receiver) = chain(&stock).await;
    {
        let moved = Moved::default();
        let mut waiting = std::pin::pin!(carry(&from, &to, &moved));
        let once = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending()));
        assert!(once.await);
        assert_eq!(stock.pipes().0, 0);
    }
    let taken: Vec<_> = (0..PIPES_MAX).map(|_| stock.take_pipe().unwrap()).collect();
    assert!(stock.take_pipe().is_none());
    sender.write_all(&bytes(64 << 10)).await.unwrap();
    assert_eq!(carry(&from, &to, &Moved::default()).await.unwrap(), Carried::NoBulk);
    drop(taken);
    assert_eq!(stock.pipes().0, 0);
}

#[tokio::test]
async fn a_pipe_with_a_dead_connections_bytes_is_not_used_again() {
    let stock = Stock::default();
    let (mut sender, from, to, receiver) = chain(&stock).await;
    {
        let moved = Moved::default();
        let mut carrying = std::pin::pin!(carry(&from, &to, &moved));
        // Nobody receives: at last the pipe stays full.
        let send = async {
            let big = bytes(1 << 20);
            loop {
                tokio::select! {
                    done = sender.write_all(&big) => done.unwrap(),
                    () = tokio::time::sleep(std::time::Duration::from_millis(300)) => return,
                }
            }
        };
        tokio::select! {
            _ = &mut carrying => panic!("it cannot end"),
            () = send => {}
        }
        assert_eq!(stock.pipes(), (1, 0));
    }
    assert_eq!(stock.pipes(), (0, 0));
    drop(receiver);
}

#[tokio::test]
async fn who_has_gone_is_named() {
    let stock = Stock::default();
    let (mut sender, from, to, receiver) = chain(&stock).await;
    socket2::SockRef::from(&receiver).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(receiver);
    let moved = Moved::default();
    let send = async {
        let big = bytes(1 << 20);
        while sender.write_all(&big).await.is_ok() {}
    };
    tokio::select! {
        carried = carry(&from, &to, &moved) => assert!(matches!(carried, Err(PumpError::Sink))),
        () = send => panic!("nobody closed this end"),
    }
}
