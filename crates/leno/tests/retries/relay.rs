//! A cable between two sidecars that can be cut at any byte. It does not understand what goes over it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the caller's sidecar.
    Up,
    /// To it.
    Down,
}

/// Where a connection is cut, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// After so many bytes of the next connection that is made.
    New(Direction, usize),
    /// After so many bytes from the next one on that the caller's sidecar sends.
    Next(Direction, usize),
}

#[derive(Debug, Default)]
struct State {
    cut: Option<Cut>,
    gently: bool,
    /// Bytes up and down since somebody last asked.
    passed: [usize; 2],
    /// Connections that stand.
    open: Vec<Cable>,
    made: usize,
}

/// Both ends of a connection, and where it is cut.
#[derive(Debug)]
struct Cable {
    number: usize,
    ends: [TcpStream; 2],
    cut: Arc<Mutex<Option<(Direction, usize)>>>,
}

/// Cables to several sidecars.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    /// Where the caller's sidecar finds the others.
    pub(crate) addresses: Vec<SocketAddr>,
    state: Arc<Mutex<State>>,
}

impl Relay {
    pub(crate) fn start(to: &[SocketAddr]) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let listen = |to: &SocketAddr| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (address, to, state) = (listener.local_addr().unwrap(), *to, state.clone());
            thread::spawn(move || {
                for caller in listener.incoming() {
                    // Nobody there: the caller sees that the connection ends at once.
                    let (Ok(caller), Ok(callee)) = (caller, TcpStream::connect(to)) else { continue };
                    carry(caller, callee, &state);
                }
            });
            address
        };
        Self { addresses: to.iter().map(listen).collect(), state }
    }

    /// What happens to the next connection or bytes, and nothing else any more.
    pub(crate) fn cut(&self, cut: Option<Cut>) {
        let mut state = self.state.lock().unwrap();
        state.cut = cut;
        for cable in &state.open {
            *cable.cut.lock().unwrap() = None;
        }
    }

    /// Connections are closed from now on, not reset.
    pub(crate) fn close_gently(&self) {
        self.state.lock().unwrap().gently = true;
    }

    /// Ends all connections that stand, between two requests, and waits until both ends have noticed and ended theirs.
    pub(crate) fn end_all(&self) {
        for end in self.state.lock().unwrap().open.iter().flat_map(|cable| &cable.ends) {
            end.shutdown(Shutdown::Write).ok();
        }
        crate::common::until("all connections end", crate::SOON, || {
            self.state.lock().unwrap().open.is_empty()
        });
    }

    /// Bytes up and down since somebody last asked.
    pub(crate) fn take_passed(&self) -> [usize; 2] {
        std::mem::take(&mut self.state.lock().unwrap().passed)
    }
}

/// Carries a connection's bytes both ways.
fn carry(caller: TcpStream, callee: TcpStream, state: &Arc<Mutex<State>>) {
    for stream in [&caller, &callee] {
        stream.set_nodelay(true).ok();
    }
    let cut = Arc::<Mutex<Option<(Direction, usize)>>>::default();
    let number = {
        let mut state = state.lock().unwrap();
        if let Some(Cut::New(direction, bytes)) = state.cut {
            state.cut = None;
            *cut.lock().unwrap() = Some((direction, bytes));
        }
        state.made += 1;
        let number = state.made;
        let ends = [caller.try_clone().unwrap(), callee.try_clone().unwrap()];
        state.open.push(Cable { number, ends, cut: cut.clone() });
        number
    };
    for direction in [Direction::Up, Direction::Down] {
        let (caller, callee) = (caller.try_clone().unwrap(), callee.try_clone().unwrap());
        let (state, cut) = (state.clone(), cut.clone());
        thread::spawn(move || {
            let (mut from, mut to) =
                if direction == Direction::Up { (&caller, &callee) } else { (&callee, &caller) };
            let (mut piece, mut how) = ([0; 16 * 1024], Shutdown::Both);
            while let Ok(read @ 1..) = from.read(&mut piece) {
                let (mut passes, mut is_cut) = (read, false);
                {
                    let (mut state, mut cut) = (state.lock().unwrap(), cut.lock().unwrap());
                    if let (Direction::Up, Some(Cut::Next(direction, bytes))) = (direction, state.cut) {
                        state.cut = None;
                        *cut = Some((direction, bytes));
                    }
                    if let Some((_, left)) = cut.as_mut().filter(|(of, _)| *of == direction) {
                        passes = read.min(*left);
                        *left -= passes;
                        is_cut = *left == 0;
                    }
                    state.passed[usize::from(direction == Direction::Down)] += passes;
                }
                if to.write_all(&piece[..passes]).is_err() {
                    break;
                }
                if is_cut {
                    if !state.lock().unwrap().gently {
                        // What went before has to arrive before the reset overtakes it.
                        thread::sleep(Duration::from_millis(1));
                        how = Shutdown::Read;
                        for stream in [from, to] {
                            socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
                        }
                    }
                    break;
                }
            }
            // A reset leaves when the last of the handles is dropped; to read no more only wakes whoever has another one.
            state.lock().unwrap().open.retain(|cable| cable.number != number);
            caller.shutdown(how).ok();
            callee.shutdown(how).ok();
        });
    }
}
