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
        /// Its share of the weight of all endpoints that are not out.
        share: f64,
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
    pub(super) fn ready(route: Arc<Route>, weight: u32) -> Self {
        Self::Ready { route, weight, share: 0.0 }
    }

    fn weight(&self) -> f64 {
        match self {
            Self::Ready { weight, .. } | Self::Idle { weight, .. } | Self::Connecting { weight } => f64::from(*weight),
            Self::Out => 0.0,
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

    /// Calls walk past endpoints that are full.
    pub(super) fn bounded(mut self, bound: Bound) -> Self {
        let total: f64 = self.spots.iter().map(Spot::weight).sum();
        for spot in &mut self.spots {
            if let Spot::Ready { weight, share, .. } = spot {
                *share = f64::from(*weight) / total;
            }
        }
        self.tally = Some(Tally::new(bound, self.spots.len()));
        self
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
                Spot::Ready { route, share, .. } => {
                    if limit.is_none_or(|limit| limit.has_room(route.load(), *share)) {
                        return call(route, asks);
                    }
                    full = Some(emptier(full, (route, *share)));
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

/// The one of two endpoints that carries less for its share.
fn emptier<'a>(one: Option<(&'a Arc<Route>, f64)>, other: (&'a Arc<Route>, f64)) -> (&'a Arc<Route>, f64) {
    let fullness = |(route, share): (&Arc<Route>, f64)| f64::from(route.load().in_flight()) / share;
    one.filter(|&one| fullness(one) <= fullness(other)).unwrap_or(other)
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

    fn walk(states: &[State], owners: Vec<u32>) -> Walk<Fixed> {
        let spots = states.iter().map(|state| match state {
            State::Ready => Spot::ready(Arc::new(Route::new(SubchannelId::default(), Arc::default(), None)), 1),
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
    }
}
