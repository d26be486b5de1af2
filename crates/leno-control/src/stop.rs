//! The word that the process is to end, heard by everything that serves.

use tokio::sync::watch;

/// Says it.
#[derive(Debug)]
pub(crate) struct Stop(watch::Sender<bool>);

/// Hears it; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Stopping(watch::Receiver<bool>);

/// A pair.
pub(crate) fn channel() -> (Stop, Stopping) {
    let (stop, stopping) = watch::channel(false);
    (Stop(stop), Stopping(stopping))
}

impl Stop {
    /// Says it to everybody, also to who asks later.
    pub(crate) fn say(&self) {
        self.0.send_replace(true);
    }
}

impl Stopping {
    /// Ends when it was said, or when nobody is left to say it.
    pub(crate) async fn heard(&self) {
        let mut said = self.0.clone();
        let _ = said.wait_for(|said| *said).await;
    }
}
