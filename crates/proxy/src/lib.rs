//! A gRPC proxy: each call of each client connection is placed by Evenkeel's channel on its own.
//!
//! The channel decides: it knows the endpoints, connects to each once, checks their health, and publishes pickers. Threads of
//! the proxy carry the calls, one a core and each with all it needs: its listener, its clients, and its own connections to
//! the endpoints. Each runs a [relay engine](evenkeel_relay) and places calls by the channel's newest picker.
//!
//! In the order of a call: `proxy` listens and starts the workers, the engine reads the call, `placement` chooses its
//! endpoint and hears how it ended. Beside that, `control` dials endpoints for the workers and tells them of new pickers, `figures`
//! asks them what they count, and `metrics` passes that on.

mod control;
mod figures;
mod metrics;
mod placement;
mod proxy;
mod settings;

pub use figures::{Figures, Monitor};
pub use proxy::Proxy;
pub use settings::Settings;
