//! The spans of calls and attempts: what they say, and that they close when the call ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod servers;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use evenkeel_channel::Channel;
use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};
use servers::{Server, request};
use tracing::{
    Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

/// A span that has closed.
#[derive(Clone, Debug, Default)]
struct Closed {
    name: &'static str,
    parent: Option<&'static str>,
    fields: Fields,
}

#[derive(Clone, Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl Closed {
    fn field(&self, name: &str) -> &str {
        self.fields.0.get(name).map_or("", String::as_str)
    }
}

/// Keeps the spans of calls as they close.
#[derive(Clone, Default)]
struct Spans {
    closed: Arc<Mutex<Vec<Closed>>>,
}

impl Spans {
    /// Watches this thread, and so the test's runtime, while the guard is there.
    fn watch(most: Level) -> (Self, DefaultGuard) {
        let spans = Self::default();
        let filter = tracing_subscriber::filter::LevelFilter::from_level(most);
        let subscriber = tracing_subscriber::registry().with(spans.clone().with_filter(filter));
        (spans, tracing::subscriber::set_default(subscriber))
    }

    /// What has closed since the last call of this: each span's name and status.
    fn take(&self) -> Vec<Closed> {
        std::mem::take(&mut self.closed.lock().unwrap())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() == "evenkeel::call" {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            context.span(id).unwrap().extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(fields) = context.span(id).unwrap().extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        if let Some(fields) = span.extensions_mut().remove::<Fields>() {
            let parent = span.parent().map(|parent| parent.name());
            self.closed.lock().unwrap().push(Closed { name: span.name(), parent, fields });
        }
    }
}

fn names(closed: &[Closed]) -> Vec<(&str, &str)> {
    closed.iter().map(|span| (span.name, span.field("status"))).collect()
}

fn client(server: &Server) -> EchoClient<Channel> {
    EchoClient::new(Channel::builder(servers::target(&[server])).policy("round_robin").build().unwrap())
}

#[tokio::test]
async fn a_call_and_its_attempt_say_where_they_went_and_how_they_ended() {
    let server = Server::start().await;
    let (spans, _watching) = Spans::watch(Level::DEBUG);
    let mut client = client(&server);
    client.unary(request("x")).await.unwrap();
    let closed = spans.take();
    let [attempt, call] = &closed[..] else { panic!("{closed:?}") };
    assert_eq!(names(&closed), [("attempt", "OK"), ("call", "OK")]);
    assert_eq!((attempt.parent, call.parent), (Some("call"), None));
    assert_eq!((attempt.field("endpoint"), attempt.field("previous")), (&*server.address.to_string(), "0"));
    assert_eq!(call.field("method"), "/evenkeel.demo.v1.Echo/Unary");
    assert_eq!(call.field("target"), server.address.to_string());

    server.fails(tonic::Code::NotFound);
    client.unary(request("x")).await.unwrap_err();
    assert_eq!(names(&spans.take()), [("attempt", "NOT_FOUND"), ("call", "NOT_FOUND")]);
}

#[tokio::test]
async fn spans_last_as_long_as_the_response_and_no_longer() {
    let server = Server::start().await;
    let (spans, _watching) = Spans::watch(Level::DEBUG);
    let mut client = client(&server);
    let request = EchoRequest { repeat: 2, ..request("again") };
    let mut replies = client.server_stream(request).await.unwrap().into_inner();
    replies.message().await.unwrap().unwrap();
    assert_eq!(names(&spans.take()), [], "the call goes on");
    replies.message().await.unwrap().unwrap();
    assert!(replies.message().await.unwrap().is_none());
    // The stream is still held: its end is what counts.
    assert_eq!(names(&spans.take()), [("attempt", "OK"), ("call", "OK")]);
    drop(replies);
    assert_eq!(names(&spans.take()), []);
}

#[tokio::test]
async fn a_call_that_is_given_up_closes_its_spans_as_cancelled() {
    let server = Server::start().await;
    let (spans, _watching) = Spans::watch(Level::DEBUG);
    let mut client = client(&server);
    let call = client.unary(EchoRequest { delay_ms: 60_000, ..request("slow") });
    tokio::select! {
        _ = call => panic!("it takes a minute"),
        () = server.until_busy() => {}
    }
    let mut closed = spans.take();
    closed.sort_by_key(|span| span.name);
    assert_eq!(names(&closed), [("attempt", "CANCELLED"), ("call", "CANCELLED")]);

    let mut late = tonic::Request::new(EchoRequest { delay_ms: 60_000, ..request("slow") });
    late.set_timeout(Duration::from_millis(50));
    client.unary(late).await.unwrap_err();
    let closed = spans.take();
    assert_eq!(names(&closed), [("attempt", "DEADLINE_EXCEEDED"), ("call", "DEADLINE_EXCEEDED")]);
}

#[tokio::test]
async fn there_are_no_spans_above_debug() {
    let server = Server::start().await;
    let (spans, _watching) = Spans::watch(Level::INFO);
    client(&server).unary(request("x")).await.unwrap();
    assert_eq!(names(&spans.take()), []);
}
