//! Log lines go to stderr, so that stdout stays what a command was asked for.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

/// What `--log` chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Level {
    /// Faults of Leno itself.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And what happens once or seldom.
    Info,
    /// And what happens per connection; the output of service commands under `leno up`.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word that `--log` takes for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Starts logging at `level`. Libraries are heard from warnings on, except at [`Level::Trace`]: what they say of every
/// connection hides what Leno says.
pub(crate) fn start(level: Level) {
    let own = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let libraries = if level == Level::Trace { own } else { own.min(LevelFilter::WARN) };
    let targets = Targets::new().with_target("leno", own).with_default(libraries);
    let subscriber =
        tracing_subscriber::fmt().with_max_level(own).with_writer(std::io::stderr).with_ansi(false).finish();
    // A second subscriber in one process would be a fault of this binary; the first one keeps working.
    tracing::subscriber::set_global_default(subscriber.with(targets)).ok();
}
