//! A tonic server and the generated client, over real sockets.

use std::error::Error;
use std::time::Duration;

use evenkeel_health::ServingStatus::{self, NotServing, ServiceUnknown, Serving, Unknown};
use evenkeel_health::{Drain, DrainError, Limits, Reporter, service_with};
use evenkeel_proto::health::health_client::HealthClient;
use evenkeel_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest};
use evenkeel_server::Listener;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::service::Routes;
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
    let Running { mut client, .. } = run(Limits { max_watchers: 1, ..Limits::default() }, Drain::default()).await?;
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

#[tokio::test]
async fn ten_thousand_watches_of_one_connection_are_refused_and_harm_no_neighbour() -> Outcome {
    let listener = Listener::bind("127.0.0.1:0".parse()?).await?;
    let address = listener.local_addr()?;
    let (reporter, health) = service_with(Limits::default());
    let server = evenkeel_server::Server::new(listener, Routes::new(health)).max_concurrent_streams(20_000);
    let server = tokio::spawn(server.serve());
    let connect = async || Endpoint::try_from(format!("http://{address}"))?.connect().await.map(HealthClient::new);
    let (greedy, mut neighbour) = (connect().await?, connect().await?);
    let mut watched = neighbour.watch(named("")).await?.into_inner();
    assert_eq!(next(&mut watched).await?, Some(Serving));

    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..100 {
        let round = (0..101).map(|_| {
            let mut client = greedy.clone();
            tokio::spawn(async move { client.watch(named("")).await })
        });
        for watch in round.collect::<Vec<_>>() {
            match watch.await? {
                Ok(stream) => held.push(stream.into_inner()),
                Err(status) if status.code() == Code::ResourceExhausted => refused += 1,
                Err(status) => return Err(status.into()),
            }
        }
        assert_eq!(status(neighbour.check(named("")).await?.into_inner()), Serving);
    }
    assert_eq!((held.len(), refused), (100, 10_000));
    reporter.set("", NotServing);
    assert_eq!(next(&mut watched).await?, Some(NotServing));
    let first = held.first_mut().expect("a hundred are held");
    assert_eq!(next(first).await?, Some(Serving));
    assert_eq!(next(first).await?, Some(NotServing));
    server.abort();
    Ok(())
}

#[tokio::test]
async fn tonics_own_server_has_the_limit_of_a_connection_too() -> Outcome {
    let limits = Limits { max_watchers_per_connection: 1, ..Limits::default() };
    let Running { mut client, .. } = run(limits, Drain::default()).await?;
    let _watch = client.watch(named("")).await?;
    assert_eq!(client.watch(named("")).await.unwrap_err().code(), Code::ResourceExhausted);
    Ok(())
}

#[tokio::test]
async fn reflection_lists_and_describes_the_service() -> Outcome {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(evenkeel_health::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (_reporter, health) = service_with(Limits::default());
    let routes = Server::builder().add_service(health).add_service(reflection);
    let _server = tokio::spawn(routes.serve_with_incoming(TcpIncoming::from(listener)));
    let mut client = ServerReflectionClient::new(Endpoint::try_from(format!("http://{address}"))?.connect().await?);
    let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let asked = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("grpc.health.v1.Health.Watch".to_owned())),
    ];
    let mut replies = client.server_reflection_info(tokio_stream::iter(asked)).await?.into_inner();
    let listed = replies.message().await?.and_then(|reply| reply.message_response);
    let Some(MessageResponse::ListServicesResponse(listed)) = listed else { panic!("no list: {listed:?}") };
    assert!(listed.service.iter().any(|service| service.name == "grpc.health.v1.Health"));
    let described = replies.message().await?.and_then(|reply| reply.message_response);
    let Some(MessageResponse::FileDescriptorResponse(described)) = described else { panic!("none: {described:?}") };
    let file = &described.file_descriptor_proto[0];
    assert!(file.windows(7).any(|name| name == b"Health\x12"), "the service and its methods are in it");
    Ok(())
}
