use std::{io::Write, pin::Pin, sync::Arc};

use evenkeel_channel::{
    Channel,
    balance::Endpoint,
    naming::{Resolution, Resolver, Updates},
};
use evenkeel_config::{File, Proxy as Config, Upstream};
use evenkeel_proxy::Proxy;
use evenkeel_supervisor::Handle;
use tokio::{sync::watch, task::JoinSet};

use super::front::Front;
use crate::proxy;

/// The proxies of a file.
pub(crate) struct Proxies {
    serving: JoinSet<bool>,
    fronts: Vec<Front>,
    drain: watch::Sender<bool>,
    have_ended: bool,
}

impl Proxies {
    /// Listens for each, and serves from now on. Calls wait for the first replicas that serve, of services that `handle`
    /// supervises.
    pub(crate) fn bind(file: &File, handle: Option<&Handle>) -> Result<Self, String> {
        let mut proxies =
            Self { serving: JoinSet::new(), fronts: Vec::new(), drain: watch::Sender::new(false), have_ended: false };
        for (name, config) in &file.proxies {
            let channel = channel(config, handle).map_err(|error| format!("[proxy.{name}]: {error}"))?;
            let settings = proxy::settings(config).map_err(|error| format!("[proxy.{name}]: {error}"))?;
            let bound = Proxy::bind(config.listen, channel.clone(), settings);
            let proxy =
                bound.map_err(|error| format!("[proxy.{name}]: cannot listen on {}: {error}", config.listen))?;
            announce(name, &proxy);
            proxies.fronts.push(Front {
                name: name.clone(),
                listen: proxy.local_addr(),
                upstream: config.service.clone().or_else(|| config.target.clone()).unwrap_or_default(),
                channel,
                monitor: proxy.monitor(),
            });
            let mut drain = proxies.drain.subscribe();
            proxies.serving.spawn(proxy.serve(async move {
                // An error is the end of everything, which is a reason to drain as well.
                let _ = drain.wait_for(|drain| *drain).await;
            }));
        }
        Ok(proxies)
    }

    /// For the control socket.
    pub(crate) fn fronts(&self) -> Arc<[Front]> {
        self.fronts.as_slice().into()
    }

    /// Takes no more calls; those that run may end.
    pub(crate) fn drain(&mut self) {
        self.drain.send_replace(true);
    }

    /// Done when every proxy has ended; whether all calls did so by themselves.
    pub(crate) async fn ended(&mut self) -> bool {
        let mut all = true;
        while let Some(ended) = self.serving.join_next().await {
            all &= ended.unwrap_or(false);
        }
        self.have_ended = true;
        all
    }

    pub(super) fn are_gone(&self) -> bool {
        self.have_ended
    }
}

fn channel(config: &Config, handle: Option<&Handle>) -> Result<Channel, String> {
    match (config.upstream(), handle) {
        (Some(Upstream::Service(service)), None) => Err(format!(
            "it stands before the service `{service}`, which `evenkeel supervise` runs; use that, or `target`"
        )),
        (Some(Upstream::Service(service)), Some(handle)) => {
            let replicas = Replicas(handle.endpoints(service));
            // So that standbys get calls only while too few primaries that serve can be reached.
            let builder = Channel::builder(service).authority(service).resolver(Box::new(replicas)).by_rank();
            proxy::channel(builder, config)
        }
        (Some(Upstream::Target(target)), _) => proxy::channel(Channel::builder(target), config),
        (None, _) => Err("it needs one of `service` and `target`".to_owned()),
    }
}

/// Says where a proxy listens: for people, and for programs that asked for any free port.
fn announce(name: &str, proxy: &Proxy) {
    let address = proxy.local_addr();
    let mut stdout = std::io::stdout().lock();
    // A closed standard output is no reason not to serve.
    let _ = writeln!(stdout, "proxy {name} listening on {address}").and_then(|()| stdout.flush());
    tracing::info!(target: "evenkeel::proxy", name, listen = %address, "proxy is serving");
}

/// Resolves to the replicas of a service that take calls. Before the first, there is nothing to say, and calls wait.
struct Replicas(watch::Receiver<Arc<[Endpoint]>>);

impl Resolver for Replicas {
    fn run(mut self: Box<Self>, updates: Updates) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if self.0.wait_for(|endpoints| !endpoints.is_empty()).await.is_err() {
                return;
            }
            loop {
                let endpoints = self.0.borrow_and_update().to_vec();
                updates.send(Ok(Resolution::new(endpoints)));
                if self.0.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}
