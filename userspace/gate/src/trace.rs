use aya::Ebpf;
use aya_log::EbpfLogger;

/// Name of the global by which the programs know what to log.
pub(crate) const LEVEL: &str = aya_log::LEVEL;

/// What the programs log. At any level above debug the kernel drops that code
/// when it loads them; where nobody reads, they go on all the same.
pub(crate) struct Trace(EbpfLogger<ToTracing>);

impl Trace {
    /// Value of [`LEVEL`]: all or nothing.
    pub(crate) fn level() -> u8 {
        match tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            true => aya_log::Level::Debug as u8,
            false => 0,
        }
    }

    /// None if nothing is logged.
    pub(crate) fn of(ebpf: &mut Ebpf) -> Option<Self> {
        if Self::level() == 0 {
            return None;
        }
        match EbpfLogger::init_with_logger(ebpf, ToTracing) {
            Ok(logger) => Some(Self(logger)),
            Err(error) => {
                tracing::warn!(%error, "what the programs log cannot be read");
                None
            }
        }
    }

    /// Passes on what has been logged since.
    pub(crate) fn pass_on(&mut self) {
        self.0.flush();
    }
}

/// For `LOCKGATE_LOG`.
const TARGET: &str = "lockgate_gate::kernel";

struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: TARGET, line = record.line(), "{}", record.args());
    }

    fn flush(&self) {}
}
