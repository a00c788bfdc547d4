use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use evenkeel_balance::Endpoint;
use evenkeel_config::Service;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Input, Order, OrderError, ServiceStatus,
    process::{Exit, Signal},
};

/// What the engine hears.
#[derive(Debug)]
pub(super) enum Message {
    Input(Input),
    Order(Order, oneshot::Sender<Result<String, OrderError>>),
    Status(oneshot::Sender<Vec<ServiceStatus>>),
    Signal(Signal),
}

/// That there is nothing left to supervise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How the services ended, where they did so by themselves: the first that did not do well, or else any.
    pub exit: Option<Exit>,
    /// Whether everything was stopped, rather than having ended by itself.
    pub was_stopped: bool,
}

/// How the whole of it is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Overall {
    pub(super) is_serving: bool,
    pub(super) ended: Option<Ended>,
}

/// A running supervisor. Clones are the same one; it lives on without them, until it has ended.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) messages: mpsc::UnboundedSender<Message>,
    pub(super) overall: watch::Receiver<Overall>,
    pub(super) endpoints: Endpoints,
}

impl Handle {
    /// Follows the file as it is now. Services that are new are started, those that are gone stopped, and those that
    /// would be started otherwise restarted, one replica at a time.
    pub fn configure(&self, services: BTreeMap<String, Service>) {
        self.send(Message::Input(Input::Configured(services)));
    }

    /// Stops everything, in order.
    pub fn shut_down(&self) {
        self.send(Message::Input(Input::Shutdown));
    }

    /// Kills everything at once.
    pub fn kill_all(&self) {
        self.send(Message::Input(Input::KillAll));
    }

    /// Passes a signal on to each process that was started, not to what those have started.
    pub fn signal(&self, signal: Signal) {
        self.send(Message::Signal(signal));
    }

    /// Follows an order. The text says what will happen.
    ///
    /// # Errors
    ///
    /// Where there is no such service or replica, or everything is being stopped.
    pub async fn order(&self, order: Order) -> Result<String, OrderError> {
        let (sender, answer) = oneshot::channel();
        self.send(Message::Order(order, sender));
        answer.await.unwrap_or(Err(OrderError::ShuttingDown))
    }

    /// What each service is doing, by name; nothing once it has ended.
    pub async fn status(&self) -> Vec<ServiceStatus> {
        let (sender, answer) = oneshot::channel();
        self.send(Message::Status(sender));
        answer.await.unwrap_or_default()
    }

    /// Done as soon as every service serves; never, if it ends before.
    pub async fn serving(&self) {
        let mut overall = self.overall.clone();
        if overall.wait_for(|overall| overall.is_serving).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Done when there is nothing left to supervise and no process of it runs.
    pub async fn ended(&self) -> Ended {
        let mut overall = self.overall.clone();
        let ended = overall.wait_for(|overall| overall.ended.is_some()).await.ok().and_then(|overall| overall.ended);
        ended.unwrap_or(Ended { exit: None, was_stopped: true })
    }

    /// The replicas of a service that take calls, as they are now and as they change. A service that is not there has
    /// none.
    pub fn endpoints(&self, service: &str) -> watch::Receiver<Arc<[Endpoint]>> {
        self.endpoints.of(service).subscribe()
    }

    fn send(&self, message: Message) {
        // Fails only where everything has ended.
        let _ = self.messages.send(message);
    }
}

/// Who takes the calls of each service.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints(Arc<Mutex<BTreeMap<String, Published>>>);

type Published = watch::Sender<Arc<[Endpoint]>>;

impl Endpoints {
    pub(super) fn of(&self, service: &str) -> Published {
        let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        services.entry(service.to_owned()).or_insert_with(|| watch::Sender::new(Arc::new([]))).clone()
    }
}
