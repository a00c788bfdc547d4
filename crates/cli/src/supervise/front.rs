use std::net::SocketAddr;

use evenkeel_channel::{
    Channel,
    balance::{Connectivity, SubchannelReport, Time, policy},
};
use evenkeel_proxy::{Figures, Monitor};
use evenkeel_supervisor::control::{DecisionStatus, EndpointStatus, GroupStatus, ProxyStatus, TrafficStatus};

/// A proxy as it is seen from the control socket.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    pub(super) name: String,
    pub(super) listen: SocketAddr,
    pub(super) upstream: String,
    pub(super) channel: Channel,
    pub(super) monitor: Monitor,
}

impl Front {
    /// None while the runtime is shutting down.
    pub(super) async fn status(&self) -> Option<ProxyStatus> {
        let explanation = self.channel.explain().await?;
        let figures = self.monitor.figures().await;
        let floods = figures.counters.connections.floods.by_kind();
        let (now, report) = (self.channel.now(), &explanation.report);
        let failover = failover(&explanation.policies);
        let groups = failover.map(|failover| failover.children.iter().map(group).collect());
        let remarks = failover.map_or(Vec::new(), |failover| failover.notes.clone());
        let resolver = report.resolver_error.iter().map(|error| format!("resolver: {error}"));
        let config = report.config_error.iter().map(|error| format!("refused: {error}"));
        let decisions = explanation.decisions.iter();
        Some(ProxyStatus {
            name: self.name.clone(),
            listen: self.listen.to_string(),
            upstream: self.upstream.clone(),
            state: report.connectivity.to_string(),
            policy: report.policy.clone(),
            switched_to: explanation.switched_to,
            remarks: remarks.into_iter().chain(resolver).chain(config).collect(),
            groups: groups.unwrap_or_default(),
            traffic: traffic(&figures),
            floods: floods.map(|(kind, count)| (kind.to_owned(), count)).into(),
            endpoints: report.endpoints.iter().map(|report| endpoint(report, now)).collect(),
            decisions: decisions
                .map(|decision| DecisionStatus { ago_ms: millis(decision.at, now), what: decision.to_string() })
                .collect(),
        })
    }

    /// Sends all calls to one group, or leaves it to what is well again; what follows from that.
    pub(super) async fn switch(&self, group: Option<u32>) -> Result<String, String> {
        let before = self.status().await.ok_or("it is being stopped")?;
        let Self { name, channel, .. } = self;
        if before.policy != "failover" && before.groups.is_empty() {
            return Err(format!(
                "`{name}` places calls by {}, which knows no groups; give it a `standby`, or a [proxy.{name}.failover]",
                before.policy
            ));
        }
        let names: Vec<_> = before.groups.iter().map(|group| group.name.as_str()).collect();
        if let Some(group) = group.map(group_name)
            // An idle proxy does not know its groups yet.
            && !names.is_empty()
            && !names.contains(&group.as_str())
        {
            return Err(format!("`{name}` has no {group} now; there are: {}", names.join(", ")));
        }
        channel.switch_to(group);
        let after = self.status().await.ok_or("it is being stopped")?;
        let groups = after.groups.iter().map(|group| format!("; {}: {}", group.name, group.what.join(", ")));
        let what = match group {
            Some(group) => format!("all calls go to {} until `evenkeel switch {name} auto`", group_name(group)),
            None => "calls go to what is well".to_owned(),
        };
        Ok(groups.fold(what, |told, group| told + &group))
    }
}

/// The policy that knows groups, wherever it is in the tree.
fn failover(policies: &policy::Explanation) -> Option<&policy::Explanation> {
    if policies.policy == "failover" {
        return Some(policies);
    }
    policies.children.iter().find_map(|(_, child)| failover(child))
}

/// As the policy calls its groups.
fn group_name(rank: u32) -> String {
    format!("group {rank}")
}

fn group((name, told): &(String, policy::Explanation)) -> GroupStatus {
    GroupStatus { name: name.clone(), what: told.notes.clone() }
}

fn traffic(figures: &Figures) -> TrafficStatus {
    let Figures { clients, running, held, refused_connections, counters, .. } = figures;
    TrafficStatus {
        clients: *clients as u64,
        running: *running as u64,
        held_bytes: *held as u64,
        calls: counters.calls,
        refused_connections: *refused_connections,
        refused_streams: counters.connections.refused,
        refused_requests: counters.refused,
        too_long: counters.too_long,
        held_too_much: counters.held_too_much,
    }
}

fn endpoint(SubchannelReport { address, state, load, .. }: &SubchannelReport, now: Time) -> EndpointStatus {
    EndpointStatus {
        address: address.to_string(),
        state: state.service.to_string(),
        is_out: state.service == Connectivity::TransientFailure || state.stalled,
        for_ms: millis(state.since, now),
        why: state.reason.clone(),
        in_flight: load.in_flight().into(),
        succeeded: load.succeeded(),
        failed: load.failed(),
    }
}

fn millis(since: Time, now: Time) -> u64 {
    u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX)
}
