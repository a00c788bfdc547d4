use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    RequestKey, Table,
    bound::{Bound, Limit, Tally},
};
use crate::{Pick, PickArgs, Picker, Route, Time};

/// How many full places a call walks past before it takes the emptiest of them. With a true total, four in five may be
/// full at a bound of 125 %, and a walk of this length is one in a million.
const MOST_FULL: usize = 64;

/// Places a call at its key's place, or as few places on as will do.
#[derive(Debug)]
pub(super) struct Walk<T> {
    table: Arc<T>,
    /// By member.
    spots: Vec<Spot>,
    key: RequestKey,
    /// Set with each [`Spot::Idle::wanted`].
    asked: Arc<AtomicBool>,
    /// Whether any endpoint is being connected.
    connecting: bool,
    /// Whether calls wait for the endpoint that their key belongs to, rather than walk on to one that is ready.
    patient: bool,
    tally: Option<Tally>,
}

/// An endpoint at the moment that the picker was made.
#[derive(Debug)]
pub(super) enum Spot {
    Ready {
        route: Arc<Route>,
        weight: u32,
    },
    /// Connected if a picker sets `wanted` and the policy hears of it.
    Idle {
        wanted: Arc<AtomicBool>,
        weight: u32,
    },
    Connecting {
        weight: u32,
    },
    Out,
}

impl Spot {
    fn weight(&self) -> u32 {
        match self {
            Self::Ready { weight, .. } | Self::Idle { weight, .. } | Self::Connecting { weight } => *weight,
            Self::Out => 0,
        }
    }
}

impl<T: Table> Walk<T> {
    pub(super) fn new(
        table: Arc<T>,
        spots: Vec<Spot>,
        key: RequestKey,
        asked: Arc<AtomicBool>,
        connecting: bool,
    ) -> Self {
        Self { table, spots, key, asked, connecting, patient: false, tally: None }
    }

    /// Calls with a key wait for the endpoint that it belongs to (gRFC A61).
    pub(super) fn patient(self) -> Self {
        Self { patient: true, ..self }
    }

    /// Calls walk past endpoints that are full. Those that are not connected yet count as empty.
    pub(super) fn bounded(self, bound: Bound) -> Self {
        let weight = self.spots.iter().map(|spot| u64::from(spot.weight())).sum();
        Self { tally: Some(Tally::new(bound, self.spots.len(), weight)), ..self }
    }

    fn limit(&self, now: Time) -> Option<Limit> {
        let loads = self.spots.iter().filter_map(|spot| match spot {
            Spot::Ready { route, .. } => Some(route.load()),
            _ => None,
        });
        self.tally.as_ref().map(|tally| tally.limit(now, loads))
    }

    /// From `place` on, the first endpoint that takes the call; if too many are full, the emptiest of them.
    ///
    /// On the way at most one idle endpoint is asked to connect, and none while one is being connected (gRFC A76).
    fn walk(&self, place: usize, patient: bool, now: Time) -> Pick {
        let limit = self.limit(now);
        let mut full = None;
        let mut passed = 0;
        let mut asks = false;
        let (before, from) = self.table.owners().split_at(place);
        for &member in from.iter().chain(before) {
            let waits = patient && full.is_none();
            match &self.spots[member as usize] {
                Spot::Ready { route, weight } => {
                    if limit.is_none_or(|limit| limit.has_room(route.load(), *weight)) {
                        return call(route, asks);
                    }
                    full = Some(emptier(full, (route, *weight)));
                    passed += 1;
                    if passed == MOST_FULL {
                        break;
                    }
                }
                Spot::Idle { wanted, .. } if waits || !(self.connecting || asks) => {
                    wanted.store(true, Ordering::Relaxed);
                    self.asked.store(true, Ordering::Release);
                    if waits {
                        return Pick::Idle;
                    }
                    asks = true;
                }
                Spot::Connecting { .. } if waits => return Pick::Queue,
                Spot::Idle { .. } | Spot::Connecting { .. } | Spot::Out => {}
            }
        }
        match full {
            Some((route, _)) => {
                if let Some(tally) = &self.tally {
                    tally.hasten(now);
                }
                call(route, asks)
            }
            None if asks => Pick::Idle,
            None => Pick::Queue,
        }
    }
}

fn call(route: &Arc<Route>, asks: bool) -> Pick {
    Pick::Call(if asks { route.call().and_exit_idle() } else { route.call() })
}

/// The one of two endpoints that carries less for its weight.
fn emptier<'a>(one: Option<(&'a Arc<Route>, u32)>, other: (&'a Arc<Route>, u32)) -> (&'a Arc<Route>, u32) {
    let calls = |(route, _): (&Arc<Route>, u32)| u64::from(route.load().in_flight());
    one.filter(|&one| calls(one) * u64::from(other.1) <= calls(other) * u64::from(one.1)).unwrap_or(other)
}

impl<T: Table> Picker for Walk<T> {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        let key = self.key.hash(args);
        let place = self.table.place(key.unwrap_or(args.entropy));
        self.walk(place, self.patient && key.is_some(), args.now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{Load, SubchannelId};

    /// A place for each entry; a hash is its own place.
    #[derive(Debug)]
    struct Fixed(Vec<u32>);

    impl Table for Fixed {
        fn place(&self, hash: u64) -> usize {
            usize::try_from(hash).unwrap() % self.0.len()
        }

        fn owners(&self) -> &[u32] {
            &self.0
        }

        fn shares(&self, _: usize) -> Vec<f64> {
            unreachable!("walks do not ask")
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum State {
        Ready,
        Idle,
        Connecting,
        Out,
    }

    /// Where a pick went, and who was asked to connect.
    #[derive(Debug, PartialEq, Eq)]
    struct Answer {
        placed: Option<usize>,
        asked: Vec<usize>,
    }

    fn states() -> impl Strategy<Value = Vec<State>> {
        vec(prop::sample::select(vec![State::Ready, State::Idle, State::Connecting, State::Out]), 1..6)
    }

    fn ready(weight: u32) -> Spot {
        Spot::Ready { route: Arc::new(Route::new(SubchannelId::default(), Arc::default(), None)), weight }
    }

    fn walk(states: &[State], owners: Vec<u32>) -> Walk<Fixed> {
        let spots = states.iter().map(|state| match state {
            State::Ready => ready(1),
            State::Idle => Spot::Idle { wanted: Arc::default(), weight: 1 },
            State::Connecting => Spot::Connecting { weight: 1 },
            State::Out => Spot::Out,
        });
        let key = RequestKey::by_header("").unwrap();
        let connecting = states.contains(&State::Connecting);
        Walk::new(Arc::new(Fixed(owners)), spots.collect(), key, Arc::default(), connecting).patient()
    }

    fn load(spot: &Spot) -> Option<&Load> {
        match spot {
            Spot::Ready { route, .. } => Some(route.load()),
            _ => None,
        }
    }

    fn answer(walk: &Walk<Fixed>, pick: &Pick) -> Answer {
        let wanted = |spot: &Spot| matches!(spot, Spot::Idle { wanted, .. } if wanted.load(Ordering::Relaxed));
        let asked: Vec<_> = (0..walk.spots.len()).filter(|&n| wanted(&walk.spots[n])).collect();
        assert_eq!(pick.exits_idle(), !asked.is_empty(), "the policy hears of it");
        assert_eq!(walk.asked.load(Ordering::Relaxed), !asked.is_empty());
        let placed = walk.spots.iter().position(|spot| load(spot).is_some_and(|load| load.in_flight() > 0));
        Answer { placed, asked }
    }

    /// gRFC A61's pseudo-code.
    fn a61(states: &[State], ring: &[u32], first: usize) -> Answer {
        for i in 0..ring.len() {
            let member = ring[(first + i) % ring.len()] as usize;
            match states[member] {
                State::Ready => return Answer { placed: Some(member), asked: vec![] },
                State::Idle => return Answer { placed: None, asked: vec![member] },
                State::Connecting => return Answer { placed: None, asked: vec![] },
                State::Out => {}
            }
        }
        Answer { placed: None, asked: vec![] }
    }

    /// gRFC A76's pseudo-code.
    fn a76(states: &[State], ring: &[u32], first: usize) -> Answer {
        let mut requested = states.contains(&State::Connecting);
        let mut asked = vec![];
        for i in 0..ring.len() {
            let member = ring[(first + i) % ring.len()] as usize;
            if states[member] == State::Ready {
                return Answer { placed: Some(member), asked };
            }
            if !requested && states[member] == State::Idle {
                asked.push(member);
                requested = true;
            }
        }
        Answer { placed: None, asked }
    }

    proptest! {
        #[test]
        fn a61_calls_with_a_key_and_a76_calls_without_go_by_the_pseudo_code(
            (states, ring) in states().prop_flat_map(|states| {
                let owner = 0..u32::try_from(states.len()).unwrap();
                (Just(states), vec(owner, 1..12))
            }),
            first in 0..12_u64,
        ) {
            let place = usize::try_from(first).unwrap() % ring.len();
            let with_key = walk(&states, ring.clone());
            let pick = with_key.walk(place, true, Time::ZERO);
            prop_assert_eq!(answer(&with_key, &pick), a61(&states, &ring, place));

            let without = walk(&states, ring.clone());
            let pick = without.pick(&PickArgs::new(Time::ZERO, first, "/test.Test/Call"));
            prop_assert_eq!(answer(&without, &pick), a76(&states, &ring, place));
        }

        #[test]
        fn bounded_calls_go_to_the_first_endpoint_below_its_share(
            (weights, ring) in vec(1..5_u32, 1..7).prop_flat_map(|weights| {
                let all: Vec<_> = (0..u32::try_from(weights.len()).unwrap()).collect();
                (Just(weights), Just([all.clone(), all].concat()).prop_shuffle())
            }),
            percent in 100..300_u32,
            steps in vec(any::<(bool, u8)>(), 1..200),
        ) {
            let spots = weights.iter().map(|&weight| ready(weight)).collect();
            let key = RequestKey::by_header("").unwrap();
            let walk = Walk::new(Arc::new(Fixed(ring.clone())), spots, key, Arc::default(), false);
            let walk = walk.bounded(Bound::of(percent).unwrap().unwrap());
            let in_flight = |member: usize| u64::from(load(&walk.spots[member]).unwrap().in_flight());
            let mut running = Vec::new();
            for (millis, (ends, bits)) in (0..).zip(steps) {
                if ends && !running.is_empty() {
                    drop(running.swap_remove(usize::from(bits) % running.len()));
                    continue;
                }
                let before: Vec<_> = (0..weights.len()).map(in_flight).collect();
                let expected = first_below_its_share(&before, &weights, &ring, bits.into(), percent.into());
                let pick = walk.walk(usize::from(bits) % ring.len(), false, Time::from_nanos(millis * 1_000_000));
                prop_assert_eq!(in_flight(expected), before[expected] + 1);
                running.push(pick);
            }
        }
    }

    /// From a place on, in plain numbers.
    fn first_below_its_share(in_flight: &[u64], weights: &[u32], ring: &[u32], first: usize, percent: u64) -> usize {
        let calls = in_flight.iter().sum::<u64>() + 1;
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        let from = (0..ring.len()).map(|i| ring[(first + i) % ring.len()] as usize);
        let mut below = from
            .filter(|&member| in_flight[member] < (percent * calls * u64::from(weights[member])).div_ceil(100 * total));
        below.next().expect("the shares add up to all calls and more")
    }
}
