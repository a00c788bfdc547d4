//! What workers leave to the runtime: dialling endpoints, and hearing of new pickers.

use std::{fmt, sync::Arc, time::Duration};

use evenkeel_channel::{Channel, DataSocket, WeakChannel, balance::Address};
use evenkeel_relay::{
    driver::{Dialled, Handle},
    engine::DialId,
    relay::Relay,
};
use evenkeel_transport::ServerTls;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::placement::Placing;

/// A worker, as other threads reach it.
pub(crate) type WorkerHandle = Handle<Relay<Placing>>;

/// What a worker asks for.
pub(crate) struct Dial {
    id: DialId,
    address: Address,
}

/// A worker's way to ask.
pub(crate) fn dials() -> (impl FnMut(DialId, &Address) + Send, UnboundedReceiver<Dial>) {
    let (sender, receiver): (UnboundedSender<Dial>, _) = mpsc::unbounded_channel();
    let ask = move |id, address: &Address| {
        // Fails only where the runtime is shutting down.
        let _ = sender.send(Dial { id, address: address.clone() });
    };
    (ask, receiver)
}

/// Serves a worker until it has ended.
pub(crate) async fn serve(channel: Channel, worker: WorkerHandle, mut dials: UnboundedReceiver<Dial>) {
    let mut versions = channel.versions();
    // The worker keeps the channel alive for as long as it needs it.
    let channel = channel.downgrade();
    worker.refresh();
    loop {
        tokio::select! {
            dial = dials.recv() => match dial {
                Some(dial) => {
                    tokio::spawn(connect(channel.clone(), worker.clone(), dial));
                }
                None => return,
            },
            version = versions.changed() => match version {
                Some(_) => worker.refresh(),
                None => return,
            },
        }
    }
}

async fn connect(channel: WeakChannel, worker: WorkerHandle, dial: Dial) {
    let outcome = match channel.upgrade() {
        Some(channel) => open(&channel, &dial.address).await,
        None => Err("the channel is shutting down".to_owned()),
    };
    worker.dialled(dial.id, outcome);
}

async fn open(channel: &Channel, address: &Address) -> Result<Dialled, String> {
    let dialled = channel.dial(address).await.map_err(|error| error.to_string())?;
    let socket = match dialled.socket {
        DataSocket::Tcp(stream) => Dialled::tcp(stream),
        DataSocket::Unix(stream) => Dialled::unix(stream),
    };
    Ok(match dialled.tls {
        Some(tls) => socket.with_tls(tls.config, tls.server_name),
        None => socket,
    })
}

/// How often the files of TLS are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Has new handshakes go by the newest good certificate, key and roots. Never ends.
pub(crate) async fn follow_files(tls: Arc<ServerTls>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let files = Arc::clone(&tls);
        match tokio::task::spawn_blocking(move || files.reload()).await {
            Ok(Ok(true)) => tracing::info!(target: "evenkeel::proxy", "the TLS files were read anew"),
            Ok(Err(error)) => {
                tracing::warn!(target: "evenkeel::proxy", %error, "TLS files refused; those before stay in force");
            }
            Ok(Ok(false)) | Err(_) => {}
        }
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dial {:?} of {}", self.id, self.address)
    }
}
