use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::{Choose, Context, NoConfig, Petiole, Policies, PolicyFactory, petiole::Candidate};
use crate::{
    ConfigError, Pick, PickArgs, Picker, Route,
    entropy::{remix, scale},
};

/// `round_robin`: ready endpoints take turns. It has no config.
#[derive(Clone, Copy, Debug)]
pub struct RoundRobin;

impl PolicyFactory for RoundRobin {
    const NAME: &'static str = "round_robin";
    type Config = NoConfig;
    type Policy = Petiole<Self>;

    fn build(&self, _: NoConfig, _: &Policies) -> Result<Petiole<Self>, ConfigError> {
        Ok(Petiole::new(*self))
    }

    fn reconfigure(
        &self,
        _: &mut Petiole<Self>,
        _: NoConfig,
        _: &Policies,
        _: &mut Context<'_>,
    ) -> Result<(), ConfigError> {
        Ok(())
    }
}

impl Choose for RoundRobin {
    type Memory = ();

    fn picker(&mut self, ready: Vec<Candidate<()>>, ctx: &mut Context<'_>) -> Arc<dyn Picker> {
        // A random start keeps many clients that resolve the same list, and their threads, from all beginning at its
        // head.
        let starts = std::iter::successors(Some(ctx.entropy().next_u64()), |&bits| Some(remix(bits)));
        let places = starts.take(PickArgs::LANES).map(|bits| Place(AtomicUsize::new(scale(bits, ready.len()))));
        Arc::new(Turns {
            places: places.collect(),
            routes: ready.into_iter().map(|candidate| candidate.route).collect(),
        })
    }
}

#[derive(Debug)]
struct Turns {
    routes: Vec<Arc<Route>>,
    /// One a lane: each takes its own turns.
    places: Vec<Place>,
}

/// How far a lane has come, on a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Place(AtomicUsize);

impl Picker for Turns {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        let place = &self.places[args.lane % self.places.len()].0;
        let turn = || self.routes.get(place.fetch_add(1, Relaxed) % self.routes.len().max(1));
        // The turn of one that is suspect is skipped rather than given to its neighbour: the others stay even.
        let turns = (0..self.routes.len()).filter_map(|_| turn());
        let route = turns.into_iter().find(|route| !route.load().is_suspect()).or_else(turn);
        route.map_or(Pick::Queue, |route| Pick::Call(route.call()))
    }
}
