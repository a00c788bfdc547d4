//! A client whose calls are spread over every instance of a service.
//!
//! Start a few servers, then the client:
//!
//! ```text
//! cargo run -p evenkeel --example server -- 127.0.0.1:50051
//! cargo run -p evenkeel --example server -- 127.0.0.1:50052
//! cargo run -p evenkeel --example client -- 127.0.0.1:50051,127.0.0.1:50052
//! ```

#![allow(clippy::print_stdout, reason = "an example speaks to its terminal")]

use evenkeel_proto::demo::{EchoRequest, echo_client::EchoClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:50051".to_owned());
    let config = r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#;

    let channel = evenkeel::Channel::builder(target).service_config(config)?.build()?;
    let mut client = EchoClient::new(channel);

    for i in 0..10 {
        let reply = client.unary(EchoRequest { message: format!("hello {i}"), ..Default::default() }).await?;
        let reply = reply.into_inner();
        println!("{} from {}", reply.message, reply.backend);
    }
    Ok(())
}
