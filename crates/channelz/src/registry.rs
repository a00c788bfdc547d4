use std::collections::BTreeMap;

use evenkeel_channel::{
    Channel, Report, SocketReport, WeakChannel,
    balance::{ConnectionId, SubchannelId},
};

/// Channels by their ids, and the ids of what belongs to them.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    last_id: i64,
    channels: BTreeMap<i64, Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    channel: WeakChannel,
    ids: Ids,
}

/// The ids of a channel's subchannels and sockets that are alive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids {
    pub(crate) subchannels: BTreeMap<SubchannelId, i64>,
    pub(crate) sockets: BTreeMap<ConnectionId, i64>,
}

impl Registry {
    pub(crate) fn add(&mut self, name: String, channel: &Channel) {
        if let Some(entry) = self.channels.values_mut().find(|entry| entry.channel.is_of(channel)) {
            entry.name = name;
            return;
        }
        self.last_id += 1;
        let entry = Entry { name, channel: channel.downgrade(), ids: Ids::default() };
        self.channels.insert(self.last_id, entry);
    }

    /// The ids of the channels that are alive, from `first` on.
    pub(crate) fn channels_from(&mut self, first: i64) -> Vec<i64> {
        self.channels.retain(|_, entry| entry.channel.upgrade().is_some());
        self.channels.range(first..).map(|(id, _)| *id).collect()
    }

    /// A channel and its name.
    pub(crate) fn channel(&self, id: i64) -> Option<(String, Channel)> {
        let entry = self.channels.get(&id)?;
        Some((entry.name.clone(), entry.channel.upgrade()?))
    }

    /// The channel that a subchannel belongs to, by their ids.
    pub(crate) fn channel_of_subchannel(&self, id: i64) -> Option<i64> {
        self.owner(|ids| ids.subchannels.values().any(|known| *known == id))
    }

    /// The channel that a socket belongs to.
    pub(crate) fn channel_of_socket(&self, id: i64) -> Option<i64> {
        self.owner(|ids| ids.sockets.values().any(|known| *known == id))
    }

    fn owner(&self, has: impl Fn(&Ids) -> bool) -> Option<i64> {
        self.channels.iter().find(|(_, entry)| has(&entry.ids)).map(|(channel, _)| *channel)
    }

    /// Gives ids to what a channel has now, and forgets those of what is gone.
    pub(crate) fn number(&mut self, channel: i64, report: &Report, sockets: &[SocketReport]) -> Ids {
        let Some(entry) = self.channels.get_mut(&channel) else { return Ids::default() };
        let subchannels = report.endpoints.iter().map(|endpoint| endpoint.id);
        entry.ids.subchannels = numbered(&entry.ids.subchannels, subchannels, &mut self.last_id);
        let sockets = sockets.iter().map(|socket| socket.id);
        entry.ids.sockets = numbered(&entry.ids.sockets, sockets, &mut self.last_id);
        entry.ids.clone()
    }
}

fn numbered<K: Ord>(known: &BTreeMap<K, i64>, keys: impl Iterator<Item = K>, last_id: &mut i64) -> BTreeMap<K, i64> {
    let number = |key| {
        let id = known.get(&key).copied().unwrap_or_else(|| {
            *last_id += 1;
            *last_id
        });
        (key, id)
    };
    keys.map(number).collect()
}
