use std::{path::PathBuf, process::ExitCode, time::Duration};

use evenkeel_config::File;
use evenkeel_supervisor::{
    Ended, Handle, Order, ServiceStatus,
    process::{Signal, Systemd},
};
use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::proxies::Proxies;

/// From the first start to the last stop.
pub(super) struct Session {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) handle: Handle,
    pub(super) systemd: Systemd,
    pub(super) signals: mpsc::UnboundedReceiver<Signal>,
    pub(super) proxies: Proxies,
}

impl Session {
    /// Until nothing is left to supervise; the exit code to end with.
    pub(super) async fn run(mut self) -> ExitCode {
        let handle = self.handle.clone();
        let mut stopped_by: Option<Signal> = None;
        let (mut is_ready, mut were_calls_cut) = (false, false);
        if self.file.services.is_empty() {
            // Proxies alone serve from the first moment.
            is_ready = true;
            self.say(Systemd::ready);
        }
        let mut alive = tokio::time::interval(self.systemd.watchdog().unwrap_or(Duration::from_secs(60)) / 2);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                ended = handle.ended() => break ended,
                Some(signal) = self.signals.recv() => match signal {
                    Signal::TERM | Signal::INT | Signal::QUIT if stopped_by.is_none() => {
                        stopped_by = Some(signal);
                        self.say(Systemd::stopping);
                        self.proxies.drain();
                    }
                    Signal::TERM | Signal::INT | Signal::QUIT => {
                        were_calls_cut |= !self.proxies.are_gone();
                        handle.kill_all();
                    }
                    // What is being stopped is neither changed nor restarted.
                    Signal::HUP if stopped_by.is_some() => {}
                    Signal::HUP => self.reload().await,
                    other => handle.signal(other),
                },
                // Services are told to stop once nobody calls them any more.
                all_ended = self.proxies.ended(), if stopped_by.is_some() && !self.proxies.are_gone() => {
                    were_calls_cut |= !all_ended;
                    handle.shut_down();
                }
                () = handle.serving(), if !is_ready => {
                    is_ready = true;
                    tracing::info!(target: "evenkeel::supervisor", "all services serve");
                    self.say(Systemd::ready);
                }
                // An answer proves that the supervisor itself does not hang.
                _ = alive.tick() => {
                    let services = handle.status().await;
                    self.say(Systemd::keep_alive);
                    self.say(|systemd| systemd.status(&summary(&services)));
                }
            }
        };
        if stopped_by.is_none() {
            self.proxies.drain();
            were_calls_cut |= !self.proxies.ended().await;
        }
        exit_code(ended, stopped_by, were_calls_cut)
    }

    /// Reads the file again. Any error leaves everything as it is.
    async fn reload(&mut self) {
        self.say(Systemd::reloading);
        match File::read(&self.path) {
            Ok(file) => self.follow(file).await,
            Err(error) => {
                for line in error.to_string().lines() {
                    tracing::error!(target: "evenkeel::supervisor", "not reloaded: {line}");
                }
            }
        }
        self.say(Systemd::ready);
    }

    async fn follow(&mut self, file: File) {
        let are_others_changed = file.proxies != self.file.proxies || file.control != self.file.control;
        if are_others_changed {
            tracing::warn!(target: "evenkeel::supervisor", "proxies and the control socket stay as they are until the next start");
        }
        if file.services == self.file.services && are_others_changed {
            tracing::info!(target: "evenkeel::supervisor", "reloaded: no service has changed");
        } else if file.services == self.file.services {
            tracing::info!(target: "evenkeel::supervisor", "reloaded, nothing has changed: everything is restarted");
            for name in file.services.keys() {
                if let Err(error) = self.handle.order(Order::Restart(name.clone())).await {
                    tracing::error!(target: "evenkeel::supervisor", "{error}");
                }
            }
        } else {
            tracing::info!(target: "evenkeel::supervisor", "reloaded: what has changed is restarted");
            self.handle.configure(file.services.clone());
        }
        self.file.services = file.services;
    }

    fn say(&self, what: impl FnOnce(&Systemd) -> std::io::Result<()>) {
        if let Err(error) = what(&self.systemd) {
            tracing::warn!(target: "evenkeel::supervisor", %error, "cannot tell systemd");
        }
    }
}

/// What `systemctl status` shows: how many replicas serve, and which service lacks some.
fn summary(services: &[ServiceStatus]) -> String {
    let (serving, wanted) = services.iter().fold((0, 0), |(a, b), each| (a + each.serving, b + each.wanted));
    let lacking = services.iter().filter(|each| each.serving < each.wanted);
    let lacking: Vec<_> = lacking.map(|each| format!("{} {} of {}", each.name, each.serving, each.wanted)).collect();
    match lacking.as_slice() {
        [] => format!("{serving} of {wanted} replicas serve"),
        lacking => format!("{serving} of {wanted} replicas serve; {}", lacking.join(", ")),
    }
}

/// As a shell has it: 0 for an orderly stop, or 128 + n as process 1; what services ended with, if they did so by
/// themselves.
fn exit_code(ended: Ended, stopped_by: Option<Signal>, were_calls_cut: bool) -> ExitCode {
    let is_first = std::process::id() == 1;
    match (stopped_by, ended.exit) {
        (Some(signal), _) if is_first => ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX)),
        (Some(_), _) if were_calls_cut => ExitCode::FAILURE,
        (Some(_), _) => ExitCode::SUCCESS,
        (None, Some(exit)) => ExitCode::from(exit.code()),
        (None, None) => ExitCode::FAILURE,
    }
}
