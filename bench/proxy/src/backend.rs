//! The cheapest backends that still are HTTP/2 servers for gRPC: the request's first bytes say what to answer, so that
//! no header block is ever decoded. Each reply is whole and obeys flow control; nothing else is checked.

mod connection;
mod head;
mod reply;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{spawn_local, yield_now},
};

use connection::Connection;

/// Serves at each address, for ever.
pub(crate) async fn serve(addresses: Vec<SocketAddr>) -> Result<()> {
    for address in addresses {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
        spawn_local(accept(listener, address));
    }
    println!("ready");
    std::future::pending().await
}

async fn accept(listener: TcpListener, address: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                spawn_local(async move {
                    // A peer that goes away is no matter: the load tells which calls failed.
                    let _ = talk(socket, address).await;
                });
            }
            Err(error) => eprintln!("cannot accept at {address}: {error}"),
        }
    }
}

/// Serves one connection until its peer closes it.
async fn talk(mut socket: TcpStream, address: SocketAddr) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut connection = Connection::new(address);
    let mut input = Vec::with_capacity(64 << 10);
    loop {
        let used = connection.take(&input);
        input.drain(..used);
        let output = connection.output();
        if !output.is_empty() {
            socket.write_all(output).await?;
            output.clear();
        }
        if connection.can_send() {
            // Room in windows may have come meanwhile, and the next piece need not wait for it.
            match socket.try_read_buf(&mut input) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => yield_now().await,
                Err(error) => return Err(error),
            }
        } else if socket.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use h2::client;
    use tokio::task::LocalSet;

    use super::*;

    /// A request for so many messages of so many bytes.
    fn request(messages: u32, bytes: u32) -> Bytes {
        let numbers = [8, messages, bytes].map(u32::to_be_bytes).concat();
        [&[0][..], &numbers].concat().into()
    }

    /// What a client with these windows and this header table gets: the bytes of DATA, and grpc-status.
    async fn call(window: u32, table: u32, body: Bytes) -> (usize, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn_local(accept(listener, address));
        let socket = TcpStream::connect(address).await.unwrap();
        let mut builder = client::Builder::new();
        builder.initial_window_size(window).header_table_size(table);
        let (client, work) = builder.handshake(socket).await.unwrap();
        spawn_local(work);
        let mut last = (0, String::new());
        // The second reply uses what the first has put into the header table.
        for _ in 0..2 {
            let request = http::Request::post("http://backend/any").body(()).unwrap();
            let (reply, mut stream) = client.clone().ready().await.unwrap().send_request(request, false).unwrap();
            stream.send_data(body.clone(), true).unwrap();
            last = read(reply.await.unwrap()).await;
        }
        last
    }

    async fn read(reply: http::Response<h2::RecvStream>) -> (usize, String) {
        assert_eq!(reply.headers()["content-type"], "application/grpc");
        let early = reply.headers().get("grpc-status").cloned();
        let (mut body, mut length) = (reply.into_body(), 0);
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            length += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        let trailers = body.trailers().await.unwrap();
        let status = trailers.and_then(|trailers| trailers.get("grpc-status").cloned()).or(early);
        (length, status.unwrap().to_str().unwrap().into())
    }

    async fn gets(window: u32, table: u32, body: Bytes, length: usize, status: &str) {
        let got = LocalSet::new().run_until(call(window, table, body)).await;
        assert_eq!(got, (length, status.to_owned()));
    }

    #[tokio::test]
    async fn small_replies_are_whole_with_and_without_a_header_table() {
        gets(65_535, 4096, request(1, 32), 37, "0").await;
        gets(65_535, 0, request(1, 32), 37, "0").await;
    }

    #[tokio::test]
    async fn large_replies_obey_small_windows() {
        gets(100, 4096, request(1, 100_000), 100_005, "0").await;
        gets(5_000, 4096, request(64, 16_384), 64 * 16_389, "0").await;
    }

    #[tokio::test]
    async fn health_checks_are_not_implemented() {
        gets(65_535, 4096, Bytes::from_static(&[0; 5]), 0, "12").await;
    }
}
