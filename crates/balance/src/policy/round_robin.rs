use std::sync::Arc;

use super::{Choose, Context, NoConfig, Petiole, Policies, PolicyFactory, petiole::Candidate, turns::Turns};
use crate::{ConfigError, Pick, PickArgs, Picker, Route};

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
        // A random start keeps many clients that resolve the same list from all beginning at its head.
        let turns = Turns::new(ctx.entropy().next_u64());
        Arc::new(Even { routes: ready.into_iter().map(|candidate| candidate.route).collect(), turns })
    }
}

#[derive(Debug)]
struct Even {
    routes: Vec<Arc<Route>>,
    turns: Turns,
}

impl Picker for Even {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        let turn = || self.routes.get(self.turns.next(args.lane) as usize % self.routes.len().max(1));
        // The turn of one that is suspect is skipped rather than given to its neighbour: the others stay even.
        let turns = (0..self.routes.len()).filter_map(|_| turn());
        let route = turns.into_iter().find(|route| !route.load().is_suspect()).or_else(turn);
        route.map_or(Pick::Queue, |route| Pick::Call(route.call()))
    }
}
