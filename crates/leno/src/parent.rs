//! Dying with the parent: a child's stdin is a pipe that its parent holds and never writes. However the parent
//! ends, even by SIGKILL, the kernel closes the pipe and the child reads end-of-file.

use std::io::Read as _;
use std::process;

use tokio::sync::oneshot;

/// Ends this process when stdin reaches end-of-file. Without a drain: nobody is left who could care.
pub(crate) fn exit_at_stdin_eof() {
    watch(|| process::exit(PARENT_GONE));
}

/// Returns when stdin reaches end-of-file; never, if no watching thread can be started.
pub(crate) async fn stdin_eof() {
    let (tell, told) = oneshot::channel();
    watch(move || {
        tell.send(()).ok();
    });
    if told.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Runs `then` on a thread of its own at end-of-file. A thread, because a blocked read of stdin cannot be
/// cancelled and would hold up the end of an async runtime.
fn watch(then: impl FnOnce() + Send + 'static) {
    let read = move || {
        let mut ignored = [0_u8; 256];
        let mut stdin = std::io::stdin().lock();
        while !matches!(stdin.read(&mut ignored), Ok(0) | Err(_)) {}
        then();
    };
    let started = std::thread::Builder::new().name("parent".to_owned()).spawn(read);
    if let Err(error) = started {
        tracing::warn!(%error, "cannot watch the parent process; this process may outlive it");
    }
}

/// Exit code of a process whose parent has gone.
const PARENT_GONE: i32 = 1;
