use std::{
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        Arc, OnceLock,
        mpsc::{self, Receiver},
    },
    thread,
};

use evenkeel_balance::{Address, ConnectionId, SubchannelId};
use evenkeel_relay::{
    driver::{Dialled, Handle, Listener, Settings},
    engine::{Action, Closed, DialId},
};

use crate::{
    running::{Client, Running},
    toy::{PATIENCE, Toy, echo},
};
