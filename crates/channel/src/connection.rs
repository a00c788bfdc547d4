//! One task a connection: dials it, works it, and tells the channel's driver what becomes of it.

use std::sync::Arc;

use evenkeel_balance::{Address, ConnectionId, Input, Load, Status};
use tokio::sync::mpsc::WeakUnboundedSender;

use evenkeel_transport::{Clock, Connection, Dialer, Line, LineSettings, News, Stream, StreamQueue};

use crate::message::Message;

/// What a connection's task works with.
pub(crate) struct Task {
    pub(crate) id: ConnectionId,
    pub(crate) address: Address,
    pub(crate) clock: Clock,
    pub(crate) line: LineSettings,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) load: Arc<Load>,
    pub(crate) queue: Arc<StreamQueue>,
    /// Weak, so that a channel that nobody uses ends even while its connections live.
    pub(crate) driver: WeakUnboundedSender<Message>,
}

impl Task {
    pub(crate) async fn run(self) {
        match self.open().await {
            Ok((connection, line)) => self.work(Arc::new(connection), line).await,
            Err(input) => self.tell(input),
        }
    }

    async fn open(&self) -> Result<(Connection, Line<Stream>), Input> {
        let failed = |why: String| Input::Disconnected(self.id, Status::unavailable(why));
        let (stream, ends) = self.dialer.dial(&self.address).await.map_err(|error| {
            let refused = |why| Input::Refused(self.id, Status::unavailable(why));
            if error.refused { refused(error.to_string()) } else { failed(error.to_string()) }
        })?;
        let (load, queue) = (Arc::clone(&self.load), Arc::clone(&self.queue));
        evenkeel_transport::handshake(stream, ends, self.clock, self.line, load, queue).await.map_err(failed)
    }

    async fn work(&self, connection: Arc<Connection>, mut line: Line<Stream>) {
        let mut connection = Some(connection);
        loop {
            match line.next().await {
                // The peer's first frame proves that somebody is there: a stopped process accepts connections too.
                News::Spoke => {
                    if let Some(connection) = connection.take() {
                        self.send(Message::Opened(self.id, connection));
                    }
                }
                News::Leaving(why, loss) => {
                    self.heed(&line);
                    self.tell(Input::Lost(self.id, Status::unavailable(why), loss));
                }
                News::Stalled(why) => self.tell(Input::Stalled(self.id, why)),
                News::Recovered => self.tell(Input::Recovered(self.id)),
                News::Closed(why, loss) => {
                    self.heed(&line);
                    return self.tell(Input::Lost(self.id, Status::unavailable(why), loss));
                }
            }
        }
    }

    /// Passes on that the peer finds PINGs too many. Said twice, it counts once.
    fn heed(&self, line: &Line<Stream>) {
        if let Some(used) = line.overdone_keepalive() {
            self.send(Message::TooManyPings(self.id, used));
        }
    }

    fn tell(&self, input: Input) {
        self.send(Message::Input(input));
    }

    /// Without a channel there is nobody to tell, and nothing to do about it.
    fn send(&self, message: Message) {
        if let Some(driver) = self.driver.upgrade() {
            let _ = driver.send(message);
        }
    }
}
