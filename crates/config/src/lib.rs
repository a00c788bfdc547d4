//! Reads Evenkeel's configuration files: services to supervise, and proxies in front of them.
//!
//! A file is TOML. [`File::parse`] reads it into plain types, each value of which is documented with its unit and
//! default. What is wrong is told with its place, and with the nearest word that would be right:
//!
//! ```
//! let toml = "[service.greeter]\ncomand = \"greeter\"\n";
//! let errors = evenkeel_config::File::parse("shop.toml", toml).unwrap_err();
//! assert_eq!(
//!     errors.to_string(),
//!     "shop.toml: missing key `command` in [service.greeter] at line 1, column 10\n\
//!      shop.toml: unknown key `comand` in [service.greeter] at line 2, column 1: did you mean `command`?"
//! );
//! ```

mod document;
mod duration;
mod error;
mod file;
mod nearest;
mod node;
mod proxy;
mod proxy_limits;
mod proxy_tls;
mod service;
mod size;
mod validate;

pub use duration::parse_duration;
pub use error::{ConfigErrors, Problem};
pub use file::File;
pub use nearest::nearest;
pub use proxy::{EndpointCheck, EndpointCheckKind, Failover, Proxy, Standby, Upstream, WhenAllOut};
pub use proxy_limits::ProxyLimits;
pub use proxy_tls::{BackendTls, ClientTls};
pub use service::{Backoff, Check, CheckKind, CrashLoop, Limits, Restart, Service};
pub use size::parse_size;
