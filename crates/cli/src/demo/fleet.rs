use std::{io, net::SocketAddr, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    backend::Order,
    script::{BACKENDS, Fault},
};

/// The backends: processes of this binary, named as [`BACKENDS`].
///
/// None outlives the demo. They are killed when the fleet ends or is dropped; should the demo itself be killed, they
/// end [by themselves](super::backend::serve_backend).
#[derive(Debug)]
pub(super) struct Fleet {
    processes: Vec<Process>,
}

impl Fleet {
    pub(super) async fn start() -> Result<Self, FleetError> {
        let mut processes = Vec::new();
        for name in BACKENDS {
            processes.push(Process::start(name, 0).await?);
        }
        Ok(Self { processes })
    }

    /// Where the backends listen, in their order.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.processes.iter().map(Process::address).collect()
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.iter().filter_map(|process| process.child.id()).collect()
    }

    pub(super) async fn inflict(&mut self, fault: Fault, backend: usize) -> Result<(), FleetError> {
        let process = &mut self.processes[backend];
        match fault {
            Fault::Kill => process.kill().await,
            Fault::NotServing => process.order(Order::NotServing).await,
            Fault::Pause => process.signal(Signal::STOP),
        }
    }

    /// Undoes [`inflict`](Self::inflict).
    pub(super) async fn repair(&mut self, fault: Fault, backend: usize) -> Result<(), FleetError> {
        let process = &mut self.processes[backend];
        match fault {
            Fault::Kill => {
                *process = Process::start(process.name, process.port).await?;
                Ok(())
            }
            Fault::NotServing => process.order(Order::Serving).await,
            Fault::Pause => process.signal(Signal::CONT),
        }
    }

    /// Kills every backend and waits until all are gone.
    pub(super) async fn end(mut self) -> Result<(), FleetError> {
        for process in &mut self.processes {
            process.kill().await?;
        }
        Ok(())
    }
}

/// What went wrong with a backend's process.
#[derive(Debug, Error)]
pub(super) enum FleetError {
    #[error("cannot find this program's own file, to start backend {name} from it")]
    Executable { name: &'static str, source: io::Error },
    #[error("cannot start backend {name}")]
    Start { name: &'static str, source: io::Error },
    #[error("backend {name} did not say which port it listens on, but {said:?}")]
    NoPort { name: &'static str, said: String },
    #[error("cannot {doing} backend {name}")]
    Control { name: &'static str, doing: String, source: io::Error },
}

#[derive(Debug)]
struct Process {
    name: &'static str,
    port: u16,
    child: Child,
    /// Held open: the process lives as long as this does.
    orders: ChildStdin,
}

impl Process {
    async fn start(name: &'static str, port: u16) -> Result<Self, FleetError> {
        let executable = std::env::current_exe().map_err(|source| FleetError::Executable { name, source })?;
        let mut child = Command::new(executable)
            .args(["demo-backend", "--name", name, "--port", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal goes to a whole group; it is for the demo to end the backends.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| FleetError::Start { name, source })?;
        let missing = || FleetError::Start { name, source: io::Error::other("it has no pipe") };
        let orders = child.stdin.take().ok_or_else(missing)?;
        let output = child.stdout.take().ok_or_else(missing)?;
        let port = read_port(name, output).await?;
        Ok(Self { name, port, child, orders })
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    async fn order(&mut self, order: Order) -> Result<(), FleetError> {
        let line = format!("{}\n", order.line());
        let written = self.orders.write_all(line.as_bytes()).await;
        written.map_err(|source| self.failed(format!("tell {:?} to", order.line()), source))
    }

    fn signal(&self, signal: Signal) -> Result<(), FleetError> {
        // A process that was waited for has no id: its number may be another's by now.
        let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else { return Ok(()) };
        kill_process(pid, signal).map_err(|errno| self.failed(format!("send {signal:?} to"), errno.into()))
    }

    async fn kill(&mut self) -> Result<(), FleetError> {
        self.signal(Signal::KILL)?;
        self.child.wait().await.map(drop).map_err(|source| self.failed("wait for".to_owned(), source))
    }

    fn failed(&self, doing: String, source: io::Error) -> FleetError {
        FleetError::Control { name: self.name, doing, source }
    }
}

async fn read_port(name: &'static str, output: ChildStdout) -> Result<u16, FleetError> {
    let mut said = String::new();
    let read = BufReader::new(output).read_line(&mut said).await;
    read.map_err(|source| FleetError::Start { name, source })?;
    said.trim().parse().map_err(|_| FleetError::NoPort { name, said })
}
