//! Checks of other servers, by the checker's probes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use evenkeel_balance::{Address, CheckFailure, CheckOutcome, FailureKind};
use evenkeel_checker::{Probe, ProbeError, Prober};
use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::SelfCheck;

/// Fails while no TCP connection can be made to `target`; see [`probe`] for what a target is.
pub fn tcp(target: impl Into<String>) -> SelfCheck {
    probe(Probe::tcp(), target)
}

/// Fails while a GET of `path`, such as `/ready`, is not answered by `target` with a status from 200 to 399; see
/// [`probe`] for what a target is.
pub fn http(target: impl Into<String>, path: impl Into<String>) -> SelfCheck {
    probe(Probe::http(path), target)
}

/// Fails while the gRPC server `target` does not say that `service` is SERVING; see [`probe`] for what a target is.
///
/// What it says counts at once, `NOT_SERVING` as well as SERVING; thresholds are for servers that cannot be reached.
pub fn grpc(target: impl Into<String>, service: &str) -> SelfCheck {
    probe(Probe::grpc(service), target)
}

/// Fails while a probe of `target` fails, with whatever settings a probe of [`evenkeel_checker`] has.
///
/// A target is `host:port`, or `unix:` and a path. A name is resolved for each probe, and the host is what the server is
/// asked for, unless [`Probe::authority`] says otherwise afterwards. The connection is kept while the name has its address.
pub fn probe(probe: Probe, target: impl Into<String>) -> SelfCheck {
    let target = target.into();
    let probe = if target.starts_with(UNIX) { probe } else { probe.authority(target.as_str()) };
    let far = Arc::new(Far { target, probe, prober: Mutex::new(None) });
    SelfCheck::of(move |deadline| {
        let far = far.clone();
        Box::pin(async move {
            let failed = |failure: Failure| CheckOutcome::Failed(failure.into());
            far.probe(deadline - MARGIN).await.unwrap_or_else(failed)
        })
    })
}

const UNIX: &str = "unix:";

/// The probe ends by itself before its task would be ended, since it can say what it was waiting for.
const MARGIN: Duration = Duration::from_millis(5);

/// A server that is probed.
struct Far {
    target: String,
    probe: Probe,
    /// With its connection. It is taken out for each probe, so that one that is dropped half-way is not used again.
    prober: Mutex<Option<Prober>>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{target:?} cannot be resolved: {error}")]
    Resolve { target: String, error: io::Error },
    #[error("{0:?} has no address")]
    NoAddress(String),
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

impl From<Failure> for CheckFailure {
    fn from(failure: Failure) -> Self {
        let kind = match failure {
            Failure::Resolve { .. } | Failure::NoAddress(_) => FailureKind::Unreachable,
            Failure::Probe(_) => FailureKind::Protocol,
        };
        Self::new(kind, failure.to_string())
    }
}

impl Far {
    async fn probe(&self, deadline: Instant) -> Result<CheckOutcome, Failure> {
        let addresses = self.addresses().await?;
        let mut slot = self.prober.lock().await;
        let kept = mem::take(&mut *slot).filter(|prober| addresses.contains(prober.address()));
        let mut prober = match kept {
            Some(prober) => prober,
            None => self.probe.at(addresses.into_iter().next().ok_or_else(|| self.no_address())?)?,
        };
        let outcome = prober.probe(deadline).await;
        // A name's other addresses have their turn after a failure.
        *slot = Some(prober).filter(|_| !matches!(outcome, CheckOutcome::Failed(_)));
        Ok(outcome)
    }

    async fn addresses(&self) -> Result<Vec<Address>, Failure> {
        if let Some(path) = self.target.strip_prefix(UNIX) {
            return Ok(vec![Address::Unix(PathBuf::from(path))]);
        }
        let resolved = lookup_host(&self.target).await;
        let resolved = resolved.map_err(|error| Failure::Resolve { target: self.target.clone(), error })?;
        Ok(resolved.map(Address::Tcp).collect())
    }

    fn no_address(&self) -> Failure {
        Failure::NoAddress(self.target.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use evenkeel_server::{Listener, Server};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tonic::service::Routes;

    use super::*;
    use crate::ServingStatus::{NotServing, Serving};

    async fn ask(check: &mut SelfCheck) -> CheckOutcome {
        check.probe_now(Instant::now() + Duration::from_secs(10)).await
    }

    #[tokio::test]
    async fn tcp_connects_or_says_that_nobody_listens() -> Result<(), Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut check = tcp(format!("localhost:{}", listener.local_addr()?.port()));
        let mut direct = tcp(listener.local_addr()?.to_string());
        assert_eq!(ask(&mut direct).await, CheckOutcome::Serving);
        drop(listener);
        for check in [&mut check, &mut direct] {
            let outcome = ask(check).await;
            assert!(
                matches!(&outcome, CheckOutcome::Failed(failure) if failure.kind == FailureKind::Refused),
                "{outcome:?}"
            );
        }
        let outcome = ask(&mut tcp("not a target")).await;
        assert!(outcome.to_string().starts_with("\"not a target\" cannot be resolved"), "{outcome}");
        Ok(())
    }

    #[tokio::test]
    async fn http_passes_by_its_status() -> Result<(), Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut check = http(listener.local_addr()?.to_string(), "/ready");
        tokio::spawn(async move {
            for status in ["200 OK", "503 Busy"] {
                let (mut socket, _) = listener.accept().await?;
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await?;
                let reply = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                socket.write_all(reply.as_bytes()).await?;
            }
            Ok::<_, io::Error>(())
        });
        assert_eq!(ask(&mut check).await, CheckOutcome::Serving);
        let outcome = ask(&mut check).await;
        assert!(
            matches!(&outcome, CheckOutcome::Failed(failure) if failure.kind == FailureKind::Status),
            "{outcome:?}"
        );
        Ok(())
    }

    #[tokio::test]
    async fn grpc_says_what_another_server_says() -> Result<(), Box<dyn Error>> {
        let listener = Listener::bind("127.0.0.1:0".parse()?).await?;
        let address = listener.local_addr()?.to_string();
        let (reporter, health) = crate::service();
        tokio::spawn(Server::new(listener, Routes::new(health)).serve());
        let mut check = grpc(&address, "a.B");
        assert_eq!(ask(&mut check).await, CheckOutcome::ServiceUnknown);
        reporter.set("a.B", Serving);
        assert_eq!(ask(&mut check).await, CheckOutcome::Serving);
        reporter.set("a.B", NotServing);
        assert_eq!(ask(&mut check).await, CheckOutcome::NotServing);
        Ok(())
    }
}
