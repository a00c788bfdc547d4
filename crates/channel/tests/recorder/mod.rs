//! A recorder for tests: keeps every figure, by its name and labels.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// The process's recorder, installed with the first call of this.
pub(crate) fn installed() -> &'static Figures {
    static FIGURES: OnceLock<Figures> = OnceLock::new();
    FIGURES.get_or_init(|| {
        let figures = Figures::default();
        metrics::set_global_recorder(figures.clone()).expect("no other recorder is installed");
        figures
    })
}

/// Everything that was recorded in this process.
#[derive(Clone, Default)]
pub(crate) struct Figures {
    by_key: Arc<Mutex<BTreeMap<String, Arc<Figure>>>>,
    units: Arc<Mutex<BTreeMap<String, Option<Unit>>>>,
}

/// One metric with one set of labels.
#[derive(Default)]
pub(crate) struct Figure {
    total: Mutex<f64>,
    samples: Mutex<Vec<f64>>,
}

impl Figures {
    /// What a counter or a gauge has come to, or the samples of a histogram added up, under exactly these labels besides
    /// the target's.
    pub(crate) fn total(&self, metric: &str, target: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.samples(metric, target, labels);
        let figure = self.find(metric, target, labels);
        figure.map_or(0.0, |figure| *lock(&figure.total)) + samples.iter().sum::<f64>()
    }

    /// What a counter or a gauge has come to, under exactly these labels, where they are no channel's.
    pub(crate) fn level(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        let figure = lock(&self.by_key).get(&name(metric, labels.iter().copied())).cloned();
        figure.map_or(0.0, |figure| *lock(&figure.total))
    }

    /// The samples of a histogram, likewise.
    pub(crate) fn samples(&self, metric: &str, target: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        self.find(metric, target, labels).map_or_else(Vec::new, |figure| lock(&figure.samples).clone())
    }

    /// The names and labels that have figures for a target.
    pub(crate) fn keys(&self, target: &str) -> Vec<String> {
        let target = format!("grpc.target={target}");
        lock(&self.by_key).keys().filter(|key| key.contains(&target)).cloned().collect()
    }

    /// The unit that a metric was described with.
    pub(crate) fn unit(&self, metric: &str) -> Option<Unit> {
        lock(&self.units).get(metric).copied().flatten()
    }

    fn find(&self, metric: &str, target: &str, labels: &[(&str, &str)]) -> Option<Arc<Figure>> {
        let all = labels.iter().copied().chain([("grpc.target", target)]);
        lock(&self.by_key).get(&name(metric, all)).cloned()
    }

    fn register(&self, key: &Key) -> Arc<Figure> {
        let labels = key.labels().map(|label| (label.key(), label.value()));
        Arc::clone(lock(&self.by_key).entry(name(key.name(), labels)).or_default())
    }

    fn describe(&self, key: &KeyName, unit: Option<Unit>) {
        lock(&self.units).insert(key.as_str().to_owned(), unit);
    }
}

/// A metric with its labels in order: `metric{a=b,c=d}`.
fn name<'a>(metric: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut labels: Vec<_> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    format!("{metric}{{{}}}", labels.join(","))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder for Figures {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&key, unit);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&key, unit);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&key, unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.register(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.register(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.register(key))
    }
}

impl CounterFn for Figure {
    #[allow(clippy::cast_precision_loss, reason = "tests count little")]
    fn increment(&self, value: u64) {
        *lock(&self.total) += value as f64;
    }

    #[allow(clippy::cast_precision_loss, reason = "tests count little")]
    fn absolute(&self, value: u64) {
        *lock(&self.total) = value as f64;
    }
}

impl GaugeFn for Figure {
    fn increment(&self, value: f64) {
        *lock(&self.total) += value;
    }

    fn decrement(&self, value: f64) {
        *lock(&self.total) -= value;
    }

    fn set(&self, value: f64) {
        *lock(&self.total) = value;
    }
}

impl HistogramFn for Figure {
    fn record(&self, value: f64) {
        lock(&self.samples).push(value);
    }
}
