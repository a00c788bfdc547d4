mod lines;

use std::io::IsTerminal;

use clap::ValueEnum;
use lines::Lines;
use tracing_subscriber::EnvFilter;

/// What is logged, and how. Logs go to standard error.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to log: off, error, warn, info, debug or trace, also per module as in `info,evenkeel::channel=debug`
    #[arg(long, global = true, value_name = "LEVEL", value_parser = parse_level)]
    log_level: Option<String>,
    /// How to write it
    #[arg(long, global = true, value_name = "FORMAT", default_value = "human")]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A line for a person
    Human,
    /// A JSON object a line, for machines
    Json,
}

impl Args {
    /// Whether logs are for machines.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.log_format, Format::Json)
    }

    /// Starts logging at `--log-level`, and not at all without it.
    pub(crate) fn start_if_asked(&self) -> Option<Logs> {
        self.log_level.is_some().then(|| self.start("off"))
    }

    /// Starts logging: at `--log-level`, or at `default` where it is not given.
    pub(crate) fn start(&self, default: &str) -> Logs {
        let filter = EnvFilter::new(self.log_level.as_deref().unwrap_or(default));
        let lines = Lines::to(std::io::stderr());
        let writer = lines.clone();
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || writer.clone());
        // They would go to standard error, and end the process where that is closed or its disk full.
        let logs = logs.log_internal_errors(false);
        match self.log_format {
            Format::Human => logs.with_ansi(std::io::stderr().is_terminal()).init(),
            Format::Json => logs.json().flatten_event(true).init(),
        }
        Logs(lines)
    }
}

/// What is still to be written of the logs; dropping this waits for it, a second at most.
#[must_use]
pub(crate) struct Logs(Lines);

impl Drop for Logs {
    fn drop(&mut self) {
        self.0.flush();
    }
}

fn parse_level(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}
