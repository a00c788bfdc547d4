use evenkeel_balance::Address;

use crate::{
    Options, Resolver, Target,
    dns::Dns,
    file::File,
    fixed::Fixed,
    target::{HostPort, Place},
};

impl Target {
    /// The built-in resolver for this target, ready to [`start`](crate::start).
    pub fn resolver(&self, options: &Options) -> Box<dyn Resolver> {
        match &self.place {
            Place::Unix(path) => Box::new(Fixed::new([Address::Unix(path.clone())])),
            Place::UnixAbstract(name) => Box::new(Fixed::new([Address::UnixAbstract(name.as_bytes().into())])),
            Place::File(path) => Box::new(File::new(path.clone(), options)),
            Place::Hosts { server, hosts } => match hosts.iter().map(HostPort::address).collect::<Option<Vec<_>>>() {
                Some(addresses) => Box::new(Fixed::new(addresses.into_iter().map(Address::Tcp))),
                None => Box::new(Dns::new(*server, hosts, options)),
            },
        }
    }
}
