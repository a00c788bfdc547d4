use std::sync::Arc;

use evenkeel_config::nearest;
use evenkeel_supervisor::{
    Handle,
    control::{Answer, Reply, Request},
};

use super::front::Front;

/// What the control socket answers: for the services of a supervisor, where there is one, and for proxies.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    handle: Option<Handle>,
    proxies: Arc<[Front]>,
}

impl Answers {
    pub(crate) fn new(handle: Option<Handle>, proxies: Arc<[Front]>) -> Self {
        Self { handle, proxies }
    }

    async fn status(&self) -> Reply {
        let services = match &self.handle {
            Some(handle) => handle.status().await,
            None => Vec::new(),
        };
        let mut proxies = Vec::new();
        for proxy in &*self.proxies {
            proxies.extend(proxy.status().await);
        }
        Reply::Status { services, proxies }
    }

    async fn switch(&self, name: &str, group: Option<u32>) -> Result<String, String> {
        let found = self.proxies.iter().find(|proxy| proxy.name == name);
        found.ok_or_else(|| self.no_proxy(name))?.switch(group).await
    }

    fn no_proxy(&self, name: &str) -> String {
        let names: Vec<_> = self.proxies.iter().map(|proxy| proxy.name.as_str()).collect();
        match nearest(name, &names, 2) {
            Some(near) => format!("there is no proxy `{name}`; did you mean `{near}`?"),
            None if names.is_empty() => format!("there is no proxy `{name}`, and no other either"),
            None => format!("there is no proxy `{name}`; there are {}", names.join(", ")),
        }
    }

    async fn follow(&self, request: &Request) -> Result<String, String> {
        if let Request::Switch { name, group } = request {
            return self.switch(name, *group).await;
        }
        match (&self.handle, request.order()) {
            (Some(handle), Some(order)) => handle.order(order).await.map_err(|error| error.to_string()),
            _ => Err("proxies alone run here, and no services".to_owned()),
        }
    }
}

impl Answer for Answers {
    async fn answer(&self, request: Request) -> Reply {
        if request == Request::Status {
            return self.status().await;
        }
        match self.follow(&request).await {
            Ok(text) => Reply::Done { text },
            Err(why) => Reply::Refused { why },
        }
    }
}
