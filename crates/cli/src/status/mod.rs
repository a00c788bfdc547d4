mod proxy;

use std::{fmt::Write, process::ExitCode};

use evenkeel_supervisor::{
    ReplicaStatus, ServiceStatus,
    control::{ProxyStatus, Reply, Request},
};

use crate::orders::Control;

/// How many of the last lines of a replica that is out are shown.
const SHOWN_LINES: usize = 5;

/// Show what each replica of a supervisor's services, and each endpoint of its proxies, is doing: why, since when, and
/// what happens next
///
/// Exit codes: 0 all is well, 1 nobody answers, 2 some replica does not serve, or some endpoint is out.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// Print JSON, with the last decisions of each proxy
    #[arg(long)]
    json: bool,
    /// Show so many of the last decisions of each proxy, of 256 that it keeps
    #[arg(long, value_name = "COUNT", num_args = 0..=1, default_value_t = 0, default_missing_value = "256")]
    decisions: usize,
    #[command(flatten)]
    control: Control,
}

pub(crate) async fn run(args: Args) -> ExitCode {
    let (services, proxies) = match args.control.ask(&Request::Status).await {
        Ok(Reply::Status { services, proxies }) => (services, proxies),
        Ok(_) => return fail("the supervisor answered something else than was asked"),
        Err(error) => return fail(&error),
    };
    if args.json {
        match serde_json::to_string_pretty(&serde_json::json!({ "services": services, "proxies": proxies })) {
            Ok(json) => crate::say(&format!("{json}\n")),
            Err(error) => return fail(&error.to_string()),
        }
    } else {
        crate::say(&text(&services, &proxies, args.decisions));
    }
    let is_well = services.iter().all(|service| service.serving == service.wanted)
        && proxies.iter().flat_map(|proxy| &proxy.endpoints).all(|endpoint| !endpoint.is_out);
    if is_well { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("evenkeel status: {why}");
    ExitCode::FAILURE
}

fn text(services: &[ServiceStatus], proxies: &[ProxyStatus], decisions: usize) -> String {
    let mut text = if services.is_empty() { String::new() } else { table(services) };
    for proxy in proxies {
        if !text.is_empty() {
            text.push('\n');
        }
        proxy::write(&mut text, proxy, decisions);
    }
    text
}

const HEADINGS: [&str; 8] = ["REPLICA", "STATE", "FOR", "PID", "RESTARTS", "ROLE", "ADDRESS", "WHY, AND WHAT NEXT"];

/// A line for each replica, and below it what is to be said of services as a whole and of replicas that are out.
fn table(services: &[ServiceStatus]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(services.iter().flat_map(|service| &service.replicas).map(row));
    let mut text = columns(&rows);
    for service in services {
        remarks(&mut text, service);
    }
    text
}

fn row(replica: &ReplicaStatus) -> [String; HEADINGS.len()] {
    let why = [replica.why.as_str(), replica.next.as_str()];
    let why: Vec<_> = why.into_iter().filter(|part| !part.is_empty()).collect();
    let state = if replica.crash_looping && replica.state != "crash-looping" {
        format!("{} (crash loop)", replica.state)
    } else {
        replica.state.clone()
    };
    [
        replica.name.clone(),
        state,
        ago(replica.for_ms),
        replica.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        replica.restarts.to_string(),
        replica.role.clone(),
        replica.address.clone().unwrap_or_else(|| "-".to_owned()),
        why.join("; "),
    ]
}

/// Rows, each column as wide as its widest cell.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for (i, cell) in rows.iter().flat_map(|row| row.iter().enumerate()) {
        widths[i] = widths[i].max(cell.chars().count());
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn remarks(text: &mut String, service: &ServiceStatus) {
    // Writing to a string cannot fail.
    if let Some(rolling) = &service.rolling {
        let _ = writeln!(text, "\n{}: {rolling}", service.name);
    } else if let Some(failed) = &service.last_roll {
        let _ = writeln!(text, "\n{}: {failed}", service.name);
    }
    for replica in service.replicas.iter().filter(|replica| !replica.last_lines.is_empty()) {
        let _ = writeln!(text, "\n{} wrote last:", replica.name);
        let first = replica.last_lines.len().saturating_sub(SHOWN_LINES);
        for line in &replica.last_lines[first..] {
            let _ = writeln!(text, "  {line}");
        }
    }
}

/// A time span as people read it, in its two greatest units.
fn ago(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_which_is_out_why_since_when_and_what_comes_next() {
        let replica = ReplicaStatus {
            name: "greeter/0".to_owned(),
            role: "primary".to_owned(),
            state: "crash-looping".to_owned(),
            for_ms: 61_000,
            why: "5 failures within 60s, the last: process exited with code 1".to_owned(),
            next: "starts again in 30s".to_owned(),
            pid: None,
            restarts: 4,
            crash_looping: true,
            health: String::new(),
            last_exit: None,
            address: None,
            last_lines: vec!["cannot open the database".to_owned()],
            run: None,
        };
        let service = ServiceStatus {
            name: "greeter".to_owned(),
            serving: 0,
            wanted: 1,
            rolling: None,
            last_roll: None,
            replicas: vec![replica],
        };
        assert_eq!(
            table(&[service]),
            "REPLICA    STATE          FOR   PID  RESTARTS  ROLE     ADDRESS  WHY, AND WHAT NEXT\n\
             greeter/0  crash-looping  1m1s  -    4         primary  -        5 failures within 60s, the last: process \
             exited with code 1; starts again in 30s\n\ngreeter/0 wrote last:\n  cannot open the database\n"
        );
    }

    #[test]
    fn spans_are_short() {
        assert_eq!([5_999, 3_599_000, 90_000_000].map(ago), ["5s", "59m59s", "1d1h"]);
    }
}
