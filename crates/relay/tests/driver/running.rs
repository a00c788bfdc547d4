//! A worker on a thread, and clients of it.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use evenkeel_relay::driver::{Handle, Host, Listener, Settings, Worker};
use rustls::ServerConfig;
use socket2::SockRef;

use crate::toy::{PATIENCE, Toy, deadline};

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle<Toy>,
    thread: JoinHandle<io::Result<Toy>>,
}

impl Running {
    pub(crate) fn start(toy: Toy) -> Self {
        Self::with(toy, Settings::default(), None)
    }

    pub(crate) fn with(toy: Toy, settings: Settings, tls: Option<&Arc<ServerConfig>>) -> Self {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 1, tls).unwrap().remove(0);
        Self::listening(toy, settings, listener, |_, _, _: &_| panic!("nobody dials here"))
    }

    pub(crate) fn listening(toy: Toy, settings: Settings, listener: Listener, host: impl Host + 'static) -> Self {
        let address = listener.local_addr();
        let (worker, handle) = Worker::new(vec![listener], host, settings).unwrap();
        let thread = thread::spawn(move || worker.run(toy));
        Self { address, handle, thread }
    }

    /// Asks the engine, on its thread.
    pub(crate) fn ask<T: Send + 'static>(&self, look: impl FnOnce(&mut Toy) -> T + Send + 'static) -> T {
        let (sender, answer) = mpsc::channel();
        self.handle.inspect(move |toy| sender.send(look(toy)).unwrap());
        answer.recv_timeout(PATIENCE).expect("the worker answers")
    }

    /// Asks until the answer is yes.
    pub(crate) fn until(&self, what: &str, look: impl FnOnce(&mut Toy) -> bool + Send + Clone + 'static) {
        let deadline = deadline();
        loop {
            if self.ask(look.clone()) {
                return;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::over(TcpStream::connect(self.address).unwrap())
    }

    /// The engine, once the worker has ended of its own accord.
    pub(crate) fn join(self) -> Toy {
        self.thread.join().unwrap().unwrap()
    }

    pub(crate) fn stop(self) -> Toy {
        self.handle.stop();
        self.join()
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads just so much.
    pub(crate) fn hear(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads until the worker closes.
    pub(crate) fn hear_all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Closes by a RST.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// `length` bytes that differ from their neighbours.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}
