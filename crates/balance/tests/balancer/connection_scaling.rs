//! Further connections where a server allows too few streams on one (gRFC A105).

use std::time::Duration;

use evenkeel_balance::{
    Action, Address, Balancer, ConnectionId, ConnectionSettings, Connectivity, HealthCheck, Input, LbConfig, Policies,
    Status, SubchannelId, Time, UnknownService, Value,
};

use crate::driver::{endpoint, secs, v4};

/// A channel with one endpoint, and what the core asks for.
struct One {
    balancer: Balancer,
    now: Time,
    dialled: Vec<ConnectionId>,
    closed: Vec<ConnectionId>,
    watched: Vec<ConnectionId>,
    /// What `grpc.subchannel.open_connections` comes to.
    open: f64,
}

impl One {
    /// Connected once, and allowed `most` connections.
    fn connected(most: usize) -> Self {
        let mut settings = ConnectionSettings::default();
        settings.max_connections = most;
        let balancer =
            Balancer::new(Policies::standard(), &LbConfig::of("round_robin"), settings, 1).expect("a good config");
        let mut one =
            Self { balancer, now: Time::ZERO, dialled: Vec::new(), closed: Vec::new(), watched: Vec::new(), open: 0.0 };
        one.input(Input::Resolved([endpoint(v4(1))].into()));
        let first = one.dialled[0];
        one.input(Input::Connected(first));
        one
    }

    fn input(&mut self, input: Input) {
        self.balancer.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.balancer.poll_action(self.now) {
            match action {
                Action::Connect { connection, .. } => self.dialled.push(connection),
                Action::Close(connection) => self.closed.push(connection),
                Action::WatchHealth { connection, .. } => self.watched.push(connection),
                Action::Measure(measured) if measured.metric == "grpc.subchannel.open_connections" => {
                    let Value::Change(change) = measured.value else { panic!("{measured:?}") };
                    self.open += change;
                }
                _ => {}
            }
        }
    }

    fn id(&self) -> SubchannelId {
        self.dialled[0].subchannel
    }

    fn saturated(&mut self) {
        self.input(Input::Saturated(self.id()));
    }

    fn lost(&mut self, connection: ConnectionId) {
        self.input(Input::Disconnected(connection, Status::unavailable("lost")));
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.balancer.next_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.balancer.handle_timeout(at);
            self.drain();
        }
        self.now = end;
    }

    fn service(&self) -> Connectivity {
        let address: Address = v4(1);
        let reports = self.balancer.subchannels();
        reports.iter().find(|report| report.address == address).expect("it is listed").state.service
    }
}

#[test]
fn a105_by_default_there_is_one_connection() {
    let mut one = One::connected(1);
    one.saturated();
    assert_eq!(one.dialled.len(), 1);
}

#[test]
fn a94_connections_of_an_endpoint_that_is_removed_are_all_counted_as_closed() {
    let mut one = One::connected(3);
    for open in [2.0, 3.0] {
        one.saturated();
        let last = *one.dialled.last().unwrap();
        one.input(Input::Connected(last));
        assert!((one.open - open).abs() < 0.1, "{}", one.open);
    }
    one.input(Input::Resolved([endpoint(v4(2))].into()));
    let second = *one.dialled.last().unwrap();
    one.input(Input::Connected(second));
    assert_eq!(one.closed.len(), 3);
    assert!((one.open - 1.0).abs() < 0.1, "one endpoint, one connection: {}", one.open);
}

#[test]
fn a105_one_attempt_at_a_time_up_to_the_limit() {
    let mut one = One::connected(3);
    for _ in 0..5 {
        one.saturated();
    }
    assert_eq!(one.dialled.len(), 2, "one attempt is in flight");
    for _ in 0..5 {
        let last = *one.dialled.last().unwrap();
        one.input(Input::Connected(last));
        one.saturated();
    }
    assert_eq!(one.dialled.len(), 3);
    assert_eq!(one.service(), Connectivity::Ready);
}

#[test]
fn a105_a_failed_attempt_waits_and_is_made_again_only_if_calls_asked_meanwhile() {
    let mut one = One::connected(2);
    one.saturated();
    one.lost(one.dialled[1]);
    one.wait(secs(10));
    assert_eq!(one.dialled.len(), 2, "nobody asked");
    one.saturated();
    one.lost(one.dialled[2]);
    one.saturated();
    assert_eq!(one.dialled.len(), 3, "not before the backoff is over");
    one.wait(secs(10));
    assert_eq!((one.dialled.len(), one.service()), (4, Connectivity::Ready));
    one.wait(secs(60));
    assert!(one.closed.contains(&one.dialled[3]), "an attempt has 20 s");
}

#[test]
fn a105_the_oldest_other_connection_takes_the_place_of_the_first() {
    let mut one = One::connected(3);
    let check = HealthCheck { service: "echo".to_owned(), unknown: UnknownService::IsUnhealthy };
    one.balancer.set_health_check(one.now, Some(check));
    one.drain();
    let first = one.dialled[0];
    one.input(Input::Health(first, evenkeel_balance::HealthSignal::Serving));
    for n in 1..3 {
        one.saturated();
        one.input(Input::Connected(one.dialled[n]));
    }
    one.lost(first);
    assert_eq!(one.service(), Connectivity::Ready, "no call has to wait");
    assert_eq!(one.watched, [first, one.dialled[1]]);
    one.input(Input::Health(one.dialled[1], evenkeel_balance::HealthSignal::NotServing));
    assert_eq!(one.service(), Connectivity::TransientFailure);
    one.wait(secs(2));
    one.lost(one.dialled[1]);
    one.lost(one.dialled[2]);
    assert_eq!(one.dialled.len(), 4, "the last one's end is the subchannel's");
}

#[test]
fn a105_a_further_connection_that_stalls_is_closed_and_the_rest_goes_on() {
    let mut one = One::connected(2);
    one.saturated();
    one.input(Input::Connected(one.dialled[1]));
    one.input(Input::Stalled(one.dialled[1], "no byte".to_owned()));
    assert_eq!((one.service(), &one.closed[..]), (Connectivity::Ready, &one.dialled[1..]));
    one.input(Input::Resolved([].into()));
    assert!(one.closed.contains(&one.dialled[0]));
}

#[test]
fn a_silent_connection_is_replaced_by_the_first_dial_that_finds_life() {
    let mut one = One::connected(1);
    let silent = one.dialled[0];
    one.input(Input::Stalled(silent, "no byte".to_owned()));
    assert_eq!((one.service(), one.dialled.len()), (Connectivity::Connecting, 2));
    one.wait(secs(3));
    assert_eq!((one.dialled.len(), one.closed.len()), (5, 3), "a dial a second");
    one.input(Input::Connected(one.dialled[4]));
    assert_eq!(one.service(), Connectivity::Ready);
    assert!(one.closed.contains(&silent), "its calls go on; new ones go elsewhere");
    one.wait(secs(60));
    one.input(Input::Stalled(silent, "still".to_owned()));
    assert_eq!((one.service(), one.dialled.len()), (Connectivity::Ready, 5), "news of it is late");
}

#[test]
fn a_silent_connection_that_speaks_again_needs_no_other() {
    let mut one = One::connected(1);
    let silent = one.dialled[0];
    one.input(Input::Stalled(silent, "no byte".to_owned()));
    one.input(Input::Recovered(silent));
    assert_eq!((one.service(), &one.closed[..]), (Connectivity::Ready, &one.dialled[1..]));
    one.wait(secs(60));
    assert_eq!(one.dialled.len(), 2);
}
