use std::io::IsTerminal;

use clap::ValueEnum;
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
    pub(crate) fn start_if_asked(&self) {
        if self.log_level.is_some() {
            self.start("off");
        }
    }

    /// Starts logging: at `--log-level`, or at `default` where it is not given.
    pub(crate) fn start(&self, default: &str) {
        let filter = EnvFilter::new(self.log_level.as_deref().unwrap_or(default));
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            Format::Human => logs.with_ansi(std::io::stderr().is_terminal()).init(),
            Format::Json => logs.json().flatten_event(true).init(),
        }
    }
}

fn parse_level(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}
