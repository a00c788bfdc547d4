//! What is printed: statuses on standard output, causes on standard error, or all of it as JSON, an object a line.

use std::{io::Write, time::Duration};

use serde::Serialize;

use super::{
    clock,
    probe::{Answer, Health, Services},
    server::Facts,
};

/// How much is printed, and in which form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) form: Form,
    /// Whether standard error is told more.
    pub(super) verbose: bool,
    /// Whether lines say which target they are about.
    pub(super) several: bool,
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Lines,
    Json,
    Nothing,
}

/// A line of JSON. What is not known is null.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    target: &'a str,
    service: &'a str,
    status: Option<String>,
    cause: Option<&'static str>,
    error: Option<String>,
    /// gRPC's name of the call's code, where there was a call.
    code: Option<&'static str>,
    exit_code: u8,
    connect_ms: Option<f64>,
    rpc_ms: Option<f64>,
    connection: Option<&'a Facts>,
}

impl Report {
    /// Prints an answer; `stamped` says when, too.
    pub(super) fn answer(self, target: &str, service: &str, answer: &Answer, stamped: bool) {
        match self.form {
            Form::Nothing => return,
            Form::Json => {
                return print(&serde_json::to_string(&Line::of(target, service, answer)).expect("it has no maps"));
            }
            Form::Lines => {}
        }
        if self.verbose {
            explain(target, answer);
        }
        match &answer.outcome {
            Ok(health) => self.status(target, *health, stamped),
            Err(failure) if stamped => self.stamped(target, &failure.to_string()),
            Err(failure) => eprintln!("evenkeel check: {target}: {failure}"),
        }
    }

    /// Prints the services of a server: the names in a column, and how each is.
    pub(super) fn services(self, target: &str, answer: &Answer<Services>) {
        let services = match &answer.outcome {
            Ok(services) => services,
            Err(failure) => return self.answer(target, "", &answer.with(Err(failure.clone())), false),
        };
        let shown = |name: &str| if name.is_empty() { "(the whole server)".to_owned() } else { name.to_owned() };
        let width = services.keys().map(|name| shown(name).chars().count()).max().unwrap_or(0);
        for (name, health) in services {
            if self.form == Form::Lines {
                let line = format!("{:width$}  {health}", shown(name));
                print(&if self.several { format!("{target}  {line}") } else { line });
            } else {
                self.answer(target, name, &answer.with(Ok(*health)), false);
            }
        }
    }

    /// Says what happens besides, to who asked for it.
    pub(super) fn aside(self, target: &str, text: &str) {
        if self.verbose {
            eprintln!("evenkeel check: {target}: {text}");
        }
    }

    fn status(self, target: &str, health: Health, stamped: bool) {
        match (stamped, self.several) {
            (true, _) => self.stamped(target, &health.to_string()),
            (false, true) => print(&format!("{target}  {health}")),
            (false, false) => print(&health.to_string()),
        }
    }

    fn stamped(self, target: &str, text: &str) {
        let target = if self.several { format!("  {target}") } else { String::new() };
        print(&format!("{}{target}  {text}", clock::now()));
    }
}

/// Says how an answer came about.
fn explain(target: &str, answer: &Answer) {
    let Some(facts) = &answer.facts else { return };
    let took = |duration: Option<Duration>| duration.map(|took| format!("{took:.1?}")).unwrap_or_default();
    let (connecting, calling) = (took(answer.connecting), took(answer.calling));
    eprintln!("evenkeel check: {target}: connected to {} in {connecting}, answered in {calling}", facts.address);
    let Some(tls) = &facts.tls else { return };
    let unknown = "unknown";
    eprintln!(
        "evenkeel check: {target}: {}, {}, ALPN {}",
        tls.version.unwrap_or(unknown),
        tls.cipher_suite.unwrap_or(unknown),
        tls.alpn.as_deref().unwrap_or("none"),
    );
    if let Some(certificate) = &tls.certificate {
        let (names, issuer, end) = (certificate.listed_names(), &certificate.issuer, &certificate.not_after);
        eprintln!("evenkeel check: {target}: certificate for {names}, issued by {issuer}, valid until {end}");
    }
}

impl<'a> Line<'a> {
    fn of(target: &'a str, service: &'a str, answer: &'a Answer) -> Self {
        let failure = answer.outcome.as_ref().err();
        let code = match failure {
            None => Some("OK"),
            Some(failure) => failure.status.as_ref().map(|(code, _)| code.name()),
        };
        Self {
            time: clock::now(),
            target,
            service,
            status: answer.outcome.as_ref().ok().map(ToString::to_string),
            cause: failure.map(|failure| failure.cause.name()),
            error: failure.map(ToString::to_string),
            code,
            exit_code: answer.exit_code(),
            connect_ms: answer.connecting.map(millis),
            rpc_ms: answer.calling.map(millis),
            connection: answer.facts.as_ref(),
        }
    }
}

/// Milliseconds, to the microsecond.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Prints a line at once: whoever reads it may wait for it. A closed standard output is no reason to fail.
fn print(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
