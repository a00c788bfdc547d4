//! A tonic server and the generated client, over real sockets.

use std::error::Error;
use std::time::Duration;

use evenkeel_health::ServingStatus::{self, NotServing, ServiceUnknown, Serving, Unknown};
use evenkeel_health::{Drain, DrainError, Limits, Reporter, service_with};
use evenkeel_proto::health::health_client::HealthClient;
use evenkeel_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{self, Channel, Endpoint, Server};
use tonic::{Code, Status, Streaming};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

struct Running {
    reporter: Reporter,
    client: HealthClient<Channel>,
    trigger: oneshot::Sender<()>,
    server: JoinHandle<Result<(), DrainError<transport::Error>>>,
}

async fn run(limits: Limits, drain: Drain) -> Outcome<Running> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (reporter, health) = service_with(limits);
    let (trigger, triggered) = oneshot::channel();
    // A test that drops its trigger does not drain: its server ends with the runtime.
    let draining = reporter.drain(drain, async {
        if triggered.await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    let incoming = TcpIncoming::from(listener);
    let server = tokio::spawn(
        draining
            .run(move |signal| Server::builder().add_service(health).serve_with_incoming_shutdown(incoming, signal)),
    );
    let client = HealthClient::new(Endpoint::try_from(format!("http://{address}"))?.connect().await?);
    Ok(Running { reporter, client, trigger, server })
}

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

fn status(reply: HealthCheckResponse) -> ServingStatus {
    ServingStatus::from_number(reply.status)
}

async fn next(stream: &mut Streaming<HealthCheckResponse>) -> Result<Option<ServingStatus>, Status> {
    Ok(stream.message().await?.map(status))
}

#[tokio::test]
async fn check_answers_for_exactly_the_name_that_is_asked() -> Outcome {
    let Running { reporter, mut client, .. } = run(Limits::default(), Drain::default()).await?;
    reporter.set("a.B", Unknown);
    assert_eq!(status(client.check(named("")).await?.into_inner()), Serving);
    assert_eq!(status(client.check(named("a.B")).await?.into_inner()), Unknown);
    for unknown in ["a", "a.b", "/a.B"] {
        assert_eq!(client.check(named(unknown)).await.unwrap_err().code(), Code::NotFound);
    }
    reporter.shutdown();
    assert_eq!(status(client.check(named("a.B")).await?.into_inner()), NotServing);
    reporter.resume();
    assert_eq!(status(client.check(named("a.B")).await?.into_inner()), Unknown);
    assert_eq!(client.check(named(&"n".repeat(5000))).await.unwrap_err().code(), Code::OutOfRange);
    Ok(())
}

#[tokio::test]
async fn watch_tells_each_change_of_a_service_that_comes_and_goes() -> Outcome {
    let Running { reporter, mut client, .. } = run(Limits::default(), Drain::default()).await?;
    let mut watch = client.watch(named("a.B")).await?.into_inner();
    assert_eq!(next(&mut watch).await?, Some(ServiceUnknown));
    reporter.set("a.B", Serving);
    assert_eq!(next(&mut watch).await?, Some(Serving));
    reporter.set("a.B", Serving);
    reporter.set("other", Serving);
    reporter.set("a.B", NotServing);
    assert_eq!(next(&mut watch).await?, Some(NotServing), "what stays the same is not repeated");
    reporter.clear("a.B");
    assert_eq!(next(&mut watch).await?, Some(ServiceUnknown));
    reporter.set("a.B", Serving);
    assert_eq!(next(&mut watch).await?, Some(Serving), "the stream is still open");
    Ok(())
}

#[tokio::test]
async fn watch_is_bounded() -> Outcome {
    let Running { mut client, .. } = run(Limits { max_watchers: 1 }, Drain::default()).await?;
    assert_eq!(client.watch(named(&"n".repeat(257))).await.unwrap_err().code(), Code::InvalidArgument);
    let mut watch = client.watch(named(&"n".repeat(256))).await?.into_inner();
    assert_eq!(next(&mut watch).await?, Some(ServiceUnknown));
    assert_eq!(client.watch(named("")).await.unwrap_err().code(), Code::ResourceExhausted);
    drop(watch);
    // The server learns of the client's leaving when the reset arrives.
    while client.watch(named("")).await.is_err_and(|status| status.code() == Code::ResourceExhausted) {}
    Ok(())
}

#[tokio::test]
async fn list_answers_with_at_most_a_hundred_services() -> Outcome {
    let Running { reporter, mut client, .. } = run(Limits::default(), Drain::default()).await?;
    let _watch = client.watch(named("watched, not registered")).await?;
    for number in 1..100 {
        reporter.set(&format!("service {number}"), NotServing);
    }
    let statuses = client.list(HealthListRequest {}).await?.into_inner().statuses;
    assert_eq!(statuses.len(), 100);
    assert_eq!((status(statuses[""]), status(statuses["service 7"])), (Serving, NotServing));
    reporter.set("one more", Serving);
    assert_eq!(client.list(HealthListRequest {}).await.unwrap_err().code(), Code::ResourceExhausted);
    Ok(())
}

#[tokio::test]
async fn a_drain_ends_a_server_that_is_being_watched() -> Outcome {
    let drain = Drain { grace: Duration::ZERO, deadline: Duration::MAX };
    let Running { mut client, trigger, server, .. } = run(Limits::default(), drain).await?;
    let mut watch = client.watch(named("")).await?.into_inner();
    let mut unknown = client.watch(named("unknown")).await?.into_inner();
    assert_eq!(next(&mut watch).await?, Some(Serving));
    assert_eq!(next(&mut unknown).await?, Some(ServiceUnknown));
    trigger.send(()).expect("the server waits for it");
    assert_eq!(next(&mut watch).await?, Some(NotServing), "the last status comes before the end");
    assert_eq!(next(&mut watch).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(next(&mut unknown).await.unwrap_err().code(), Code::Unavailable);
    server.await??;
    Ok(())
}

#[tokio::test]
async fn a_server_takes_calls_during_the_grace() -> Outcome {
    let drain = Drain { grace: Duration::MAX, deadline: Duration::MAX };
    let Running { mut client, trigger, server, .. } = run(Limits::default(), drain).await?;
    let mut watch = client.watch(named("")).await?.into_inner();
    assert_eq!(next(&mut watch).await?, Some(Serving));
    trigger.send(()).expect("the server waits for it");
    assert_eq!(next(&mut watch).await?, Some(NotServing));
    assert_eq!(status(client.check(named("")).await?.into_inner()), NotServing);
    let mut late = client.watch(named("")).await?.into_inner();
    assert_eq!(next(&mut late).await?, Some(NotServing));
    assert!(!server.is_finished());
    Ok(())
}
