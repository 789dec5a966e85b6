use std::io::IsTerminal;

use lockgate_config::LogFormat;
use tracing_subscriber::EnvFilter;

/// Logs to standard error. `LOCKGATE_LOG` filters (`info`, `debug`,
/// `lockgate_proxy=debug` …); the default is `info`.
pub(crate) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("LOCKGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start changes nothing, which is as well.
    let _ = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
