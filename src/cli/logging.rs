//! Where `tracing` goes: stderr, one event a line.
//!
//! Under systemd, whose journal reads stderr, each line begins with its priority as sd-daemon(3) describes and
//! carries no time, since the journal has its own.

use std::fmt;
use std::os::fd::AsFd;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Sends events of `level` and above to stderr, for the rest of the process.
pub fn start(level: LevelFilter) {
    let format = if stderr_is_the_journal() { Lines::Journal } else { Lines::Timed };
    let subscriber =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).event_format(format).finish();
    // Already set only when a test runs two commands in one process; the first one's choice stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// `JOURNAL_STREAM` is `device:inode` of the stream that systemd opened (systemd.exec(5)). It is inherited, so
/// it counts only where stderr still is that stream.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr().as_fd()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[derive(Clone, Copy)]
enum Lines {
    Journal,
    Timed,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        match self {
            Lines::Journal => write!(to, "<{}>", priority(level))?,
            Lines::Timed => {
                let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
                write!(to, "{now} {:5} ", level.as_str().to_ascii_lowercase())?;
            }
        }
        context.field_format().format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

/// syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}
