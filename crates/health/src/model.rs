//! Random histories of a server, against a model that is too simple to be wrong.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;
use tokio_stream::Stream;

use crate::ServingStatus::{self, NotServing, ServiceUnknown, Serving, Unknown};
use crate::registry::Registry;
use crate::{Limits, Reporter, WatchStream};

const NAMES: [&str; 3] = ["", "a", "b"];

#[derive(Clone, Debug)]
enum Step {
    Set(&'static str, ServingStatus),
    Clear(&'static str),
    Checked(&'static str, Option<ServingStatus>),
    Shutdown,
    Resume,
    Watch(&'static str),
    /// The watcher of this number, if there are that many, reads all it can.
    Read(usize),
    Leave(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || prop::sample::select(&NAMES[..]);
    let status = prop::sample::select(&[Unknown, Serving, NotServing, ServiceUnknown][..]);
    let step = prop_oneof![
        4 => (name(), status).prop_map(|(name, status)| Step::Set(name, status)),
        1 => name().prop_map(Step::Clear),
        2 => (name(), prop::option::of(prop::sample::select(&[Unknown, Serving, NotServing][..])))
            .prop_map(|(name, checked)| Step::Checked(name, checked)),
        1 => Just(Step::Shutdown),
        1 => Just(Step::Resume),
        2 => name().prop_map(Step::Watch),
        4 => (0..4_usize).prop_map(Step::Read),
        1 => (0..4_usize).prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 0..60)
}

/// What the protocol's text says, and nothing else.
#[derive(Default)]
struct Model {
    set: BTreeMap<&'static str, ServingStatus>,
    checked: BTreeMap<&'static str, ServingStatus>,
    shut_down: bool,
}

impl Model {
    fn shown(&self, name: &str) -> ServingStatus {
        match self.set.get(name) {
            None | Some(ServiceUnknown) => ServiceUnknown,
            Some(_) if self.shut_down => NotServing,
            Some(Serving) => *self.checked.get(name).unwrap_or(&Serving),
            Some(status) => *status,
        }
    }

    fn listed(&self) -> Vec<(String, ServingStatus)> {
        let all = self.set.keys().map(|name| ((*name).to_owned(), self.shown(name)));
        all.filter(|(_, status)| *status != ServiceUnknown).collect()
    }
}

struct Watching {
    name: &'static str,
    stream: WatchStream,
    read: Option<ServingStatus>,
    woken: Arc<Flag>,
    /// Whether the last poll found nothing, so that the next change has to wake.
    waits: bool,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Watching {
    fn start(reporter: &Reporter, name: &'static str) -> Self {
        let stream = WatchStream::new(reporter.clone(), name, None).expect("no limit is reached");
        Self { name, stream, read: None, woken: Arc::default(), waits: false }
    }

    /// All that the stream has now.
    fn read_all(&mut self) -> Vec<ServingStatus> {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut statuses = Vec::new();
        while let Poll::Ready(item) = Pin::new(&mut self.stream).poll_next(&mut cx) {
            let reply = item.expect("the stream stays open").expect("no error while open");
            statuses.push(ServingStatus::from_number(reply.status));
        }
        self.waits = true;
        statuses
    }
}

fn apply(step: &Step, reporter: &Reporter, model: &mut Model) {
    match *step {
        Step::Set(name, status) => {
            reporter.set(name, status);
            model.set.insert(name, status);
        }
        Step::Clear(name) => {
            reporter.clear(name);
            model.set.remove(name);
        }
        Step::Checked(name, checked) => {
            reporter.set_checked(name, checked);
            model.checked.remove(name);
            model.checked.extend(checked.map(|checked| (name, checked)));
        }
        Step::Shutdown => {
            reporter.shutdown();
            model.shut_down = true;
        }
        Step::Resume => {
            reporter.resume();
            model.shut_down = false;
        }
        Step::Watch(_) | Step::Read(_) | Step::Leave(_) => {}
    }
}

proptest! {
    #[test]
    fn watchers_read_exactly_the_latest_statuses_without_repeats(steps in steps()) {
        let reporter = Reporter::new(Registry::new(Limits { max_watchers: usize::MAX, ..Limits::default() }));
        let mut model = Model { set: BTreeMap::from([("", Serving)]), ..Model::default() };
        let mut watchers: Vec<Watching> = Vec::new();
        for step in steps {
            apply(&step, &reporter, &mut model);
            match step {
                Step::Watch(name) => watchers.push(Watching::start(&reporter, name)),
                Step::Leave(at) if at < watchers.len() => drop(watchers.remove(at)),
                Step::Read(at) if at < watchers.len() => {
                    let watching = &mut watchers[at];
                    let shown = model.shown(watching.name);
                    let news = (watching.read.replace(shown) != Some(shown)).then_some(shown);
                    prop_assert_eq!(watching.read_all(), Vec::from_iter(news));
                }
                _ => {}
            }
            for watching in &watchers {
                let news = watching.read != Some(model.shown(watching.name));
                prop_assert!(!(watching.waits && news) || watching.woken.0.load(Ordering::Relaxed), "a change wakes");
            }
            for name in NAMES {
                prop_assert_eq!(reporter.status(name), model.shown(name));
            }
            let listed: Vec<_> = reporter.lock().registered().map(|(name, status)| (name.to_owned(), status)).collect();
            prop_assert_eq!(listed, model.listed());
        }
    }
}
