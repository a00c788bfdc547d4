//! The proxy's figures for the `metrics` facade.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../channel/tests/recorder/mod.rs"]
mod recorder;
#[path = "../../channel/tests/servers/mod.rs"]
mod servers;

use std::time::Duration;

use evenkeel_channel::Channel;
use evenkeel_proto::demo::echo_client::EchoClient;
use evenkeel_proxy::{Proxy, Settings};
use servers::{Server, request};
use tokio::sync::oneshot;
use tonic::transport::Endpoint;

#[tokio::test]
async fn what_workers_count_is_there_for_exporters() {
    let figures = recorder::installed();
    let server = Server::start().await;
    let channel = Channel::builder(servers::target(&[&server])).build().unwrap();
    let proxy = Proxy::bind("127.0.0.1:0".parse().unwrap(), channel, Settings::default()).unwrap();
    let listen = proxy.local_addr().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(proxy.serve(async move { drop(stopped.await) }));
    let client = Endpoint::from_shared(format!("http://{listen}")).unwrap().connect().await.unwrap();
    let mut client = EchoClient::new(client);
    for _ in 0..3 {
        client.unary(request("x")).await.unwrap();
    }
    let labels = [("evenkeel.proxy.listen", listen.as_str())];
    let counted = async {
        while figures.level("evenkeel.proxy.calls", &labels) < 3.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counted).await.expect("the calls are counted");
    assert!(figures.level("evenkeel.proxy.clients", &labels) >= 1.0);
    assert!(figures.level("evenkeel.proxy.bytes_in", &labels) > 0.0);
    let flood = [labels[0], ("evenkeel.proxy.flood", "pings")];
    assert!(figures.level("evenkeel.proxy.floods", &flood).abs() < f64::EPSILON);
    drop((client, stop));
    assert!(serving.await.unwrap());
}
