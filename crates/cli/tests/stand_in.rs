//! The command under the name of grpc-health-probe: what it prints and how it exits. `interop/checks/probe.py` compares
//! it with the original; here is what must hold without that.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod process;
#[path = "../../channel/tests/servers/mod.rs"]
mod servers;
mod strange;

use std::path::PathBuf;

use evenkeel_health::ServingStatus;
use process::{end, exit_code, quiet, signal};
use servers::Server;
use tokio::process::Command;

/// A link to the command by the other name, removed at the end.
struct Link(PathBuf);

impl Link {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("evenkeel-stand-in-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_evenkeel"), folder.join("grpc_health_probe")).unwrap();
        Self(folder)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.0.join("grpc_health_probe"));
        command.args(arguments);
        quiet(command)
    }

    /// The exit code and standard error; nothing is printed on standard output.
    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let (code, output, error) = end(self.command(arguments)).await;
        assert_eq!(output, "");
        (code, error)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn statuses_are_told_in_its_words() {
    let (probe, server) = (Link::new("statuses"), Server::start().await);
    let address = format!("-addr={}", server.address);
    assert_eq!(probe.run(&[&address]).await, (0, "status: SERVING\n".into()));
    let unknown = "error: health rpc failed: rpc error: code = NotFound desc = ";
    let (code, error) = probe.run(&[&address, "-service=x"]).await;
    assert!(code == 3 && error.starts_with(unknown), "{error}");
    server.health.set("", ServingStatus::NotServing);
    let unhealthy = "service unhealthy (responded with \"NOT_SERVING\")\n";
    assert_eq!(probe.run(&[&address]).await, (4, unhealthy.into()));
}

#[tokio::test]
async fn failures_are_told_in_its_words() {
    let probe = Link::new("failures");
    let (nobody, silent) = (strange::Nobody::new(), strange::silent().await);
    for address in [nobody.address, silent] {
        let said = format!("timeout: failed to connect service \"{address}\" within 100ms\n");
        assert_eq!(probe.run(&["-addr", &address.to_string(), "-connect-timeout=100ms"]).await, (2, said));
    }
    let obedient = strange::obedient().await.to_string();
    let said = "timeout: health rpc did not complete within 50ms\n";
    assert_eq!(probe.run(&["-addr", &obedient, "-service", "hangs", "--rpc-timeout=0.05s"]).await, (3, said.into()));
    let said = "error: health rpc failed: rpc error: code = PermissionDenied desc = not you\n";
    assert_eq!(probe.run(&["-addr", &obedient, "-service", "denied"]).await, (3, said.into()));
    let (code, error) = probe.run(&["-addr", &strange::healthless().await.to_string()]).await;
    let said = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ";
    assert!(code == 3 && error.starts_with(said), "{error}");
}

#[tokio::test]
async fn wrong_arguments_are_told_in_its_words() {
    let probe = Link::new("arguments");
    for (arguments, said) in [
        (&[][..], "error: -addr not specified\n"),
        (&["-addr=x", "-rpc-timeout=0s"], "error: -rpc-timeout must be greater than zero (specified: 0s)\n"),
        (&["-addr=x", "-tls", "-alts"], "error: cannot specify -tls with -alts\n"),
        (&["-addr=x", "-tls", "-spiffe"], "-tls and -spiffe are mutually incompatible\n"),
        (&["-addr=x", "-tls-no-verify"], "error: specified -tls-no-verify without specifying -tls\n"),
        (
            &["-addr=x", "-tls", "-tls-ca-cert=/nope"],
            "failed to initialize tls credentials. error=failed to load root CA certificates from file (/nope) error=open /nope: no such file or directory\n",
        ),
    ] {
        assert_eq!(probe.run(arguments).await, (1, said.to_owned()), "{arguments:?}");
    }
    for (arguments, first) in [
        (&["-foo"][..], "flag provided but not defined: -foo"),
        (&["-help"], "Usage:"),
        (&["-addr=x", "-connect-timeout=1"], "invalid value \"1\" for flag -connect-timeout: parse error"),
    ] {
        let (code, error) = probe.run(arguments).await;
        assert_eq!((code, error.lines().next()), (1, Some(first)));
    }
    assert_eq!(probe.run(&["-addr=x", "-spiffe"]).await.0, 20);
    assert_eq!(probe.run(&["-addr=x", "-alts"]).await.0, 2);
    let (code, output, _) = end(probe.command(&["-version"])).await;
    assert!(code == 0 && output.starts_with("evenkeel "), "{output}");
}

#[tokio::test]
async fn verbose_is_as_verbose() {
    let (probe, server) = (Link::new("verbose"), Server::start().await);
    let (code, error) = probe.run(&["-addr", &server.address.to_string(), "-v", "-rpc-header=a:b"]).await;
    let lines: Vec<_> = error.lines().collect();
    let options = format!("> addr={} conn_timeout=1s rpc_timeout=1s", server.address);
    assert_eq!(
        lines[..7],
        [
            "parsed options:",
            &options,
            "> headers: {map[<1 redacted>]}",
            "> tls=false",
            "> alts=false",
            "> spiffe=false",
            "establishing connection"
        ]
    );
    assert!(lines[7].starts_with("connection established (took "), "{error}");
    assert!(lines[8].starts_with("time elapsed: connect=") && lines[8].contains(" rpc="), "{error}");
    assert_eq!((code, lines[9], lines.len()), (0, "status: SERVING", 10));
}

#[tokio::test]
async fn a_server_that_comes_late_is_found_within_the_time_out() {
    let (probe, address) = (Link::new("late"), strange::free().await);
    let mut child = probe.command(&["-addr", &address.to_string(), "-connect-timeout=60s"]).spawn().unwrap();
    let _server = Server::start_at(address).await;
    assert_eq!(exit_code(&mut child).await, 0);
}

#[tokio::test]
async fn a_signal_ends_it() {
    let (probe, silent) = (Link::new("signal"), strange::silent().await);
    let mut child = probe.command(&["-v", "-addr", &silent.to_string(), "-connect-timeout=60s"]).spawn().unwrap();
    let mut errors = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stderr.take().unwrap()));
    while errors.next_line().await.unwrap().unwrap() != "establishing connection" {}
    signal(&child, "INT").await;
    assert_eq!(errors.next_line().await.unwrap().unwrap(), "cancellation received (signal: interrupt)");
    let said = format!("error: failed to connect service at \"{silent}\": context canceled");
    assert_eq!(errors.next_line().await.unwrap().unwrap(), said);
    assert_eq!(exit_code(&mut child).await, 2);
}
