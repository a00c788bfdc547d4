use std::sync::Arc;

use super::{Choose, Context, NoConfig, Petiole, Policies, PolicyFactory, petiole::Candidate};
use crate::{
    ConfigError, Pick, PickArgs, Picker, Route,
    entropy::{remix, scale},
};

/// `random`: each call goes to a ready endpoint drawn uniformly. It has no config.
#[derive(Clone, Copy, Debug)]
pub struct Random;

impl PolicyFactory for Random {
    const NAME: &'static str = "random";
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

impl Choose for Random {
    type Memory = ();

    fn picker(&mut self, ready: Vec<Candidate<()>>, _: &mut Context<'_>) -> Arc<dyn Picker> {
        Arc::new(Lot { routes: ready.into_iter().map(|candidate| candidate.route).collect() })
    }
}

#[derive(Debug)]
struct Lot {
    routes: Vec<Arc<Route>>,
}

impl Picker for Lot {
    fn pick(&self, args: &PickArgs<'_>) -> Pick {
        let drawn = scale(args.entropy, self.routes.len());
        let Some(route) = self.routes.get(drawn) else { return Pick::Queue };
        if !route.load().is_suspect() {
            return Pick::Call(route.call());
        }
        // A draw among the others. Rare, so that counting them each time is cheap enough.
        let others = || self.routes.iter().filter(|route| !route.load().is_suspect());
        let other = others().nth(scale(remix(args.entropy), others().count()));
        Pick::Call(other.unwrap_or(route).call())
    }
}
