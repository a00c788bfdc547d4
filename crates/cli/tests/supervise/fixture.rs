//! A supervisor under test, and what can be known of it from outside.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use evenkeel_supervisor::{
    ServiceStatus,
    control::{Reply, Request, ask},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
};

/// How long anything may take; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked at what cannot be waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A directory that is removed at the end.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("evenkeel-supervise-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the command to its end: exit code, standard output, standard error.
pub(crate) async fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    let output = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("it ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// Whether a process of this number runs; one that waits to be reaped does not.
pub(crate) fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

type Lines = watch::Receiver<Vec<String>>;

pub(crate) struct Supervised {
    dir: Dir,
    child: Child,
    socket: String,
    stdout: Lines,
    stderr: Lines,
}

impl Supervised {
    pub(crate) fn start(toml: &str) -> Self {
        Self::start_with(toml, Stdio::piped())
    }

    /// With its standard error going elsewhere, so that nothing is known of what it logs.
    pub(crate) fn start_with(toml: &str, stderr: Stdio) -> Self {
        let dir = Dir::new();
        let file = dir.write("test.toml", toml);
        let socket = dir.0.join("control.sock").to_str().unwrap().to_owned();
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.args(["supervise", &file, "--control", &socket]).stdin(Stdio::null()).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = child.stderr.take().map_or_else(|| watch::channel(Vec::new()).1, collect);
        Self { dir, child, socket, stdout, stderr }
    }

    pub(crate) fn write(&self, toml: &str) {
        self.dir.write("test.toml", toml);
    }

    /// Where its proxy listens.
    pub(crate) async fn proxy(&mut self) -> SocketAddr {
        let line = until_line(&mut self.stdout, "proxy front listening on ").await;
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) async fn until_logged(&mut self, text: &str) -> String {
        until_line(&mut self.stderr, text).await
    }

    /// Runs a command that asks it something.
    pub(crate) async fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        run(&[arguments, &["--control", &self.socket]].concat()).await
    }

    pub(crate) async fn until(&self, mut is_so: impl FnMut(&[ServiceStatus]) -> bool) {
        let last = Arc::new(Mutex::new(String::new()));
        let looked = Arc::clone(&last);
        let look = async {
            loop {
                match ask(self.socket.as_ref(), &Request::Status).await {
                    Ok(Reply::Status { services, .. }) if !services.is_empty() && is_so(&services) => return,
                    other => *looked.lock().unwrap() = format!("{other:?}"),
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, look).await.is_ok();
        assert!(came, "it never came so: {}\n{}", last.lock().unwrap(), self.stderr.borrow().join("\n"));
    }

    /// The processes that run, in the order of their replicas.
    pub(crate) async fn pids(&self) -> Vec<i32> {
        match ask(self.socket.as_ref(), &Request::Status).await.unwrap() {
            Reply::Status { services, .. } => services.iter().flat_map(|s| &s.replicas).filter_map(|r| r.pid).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Its descendants, once there are so many.
    pub(crate) async fn until_descendants(&self, count: usize) -> Vec<i32> {
        let root = i32::try_from(self.child.id().unwrap()).unwrap();
        let look = async {
            loop {
                let found = descendants(root);
                if found.len() >= count {
                    return found;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("they come")
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), pid]).status().await.unwrap().success());
    }

    /// Sends it a signal; the code that it ends with.
    pub(crate) async fn stop(self, signal: &str) -> i32 {
        self.signal(signal).await;
        self.ended().await
    }

    pub(crate) async fn ended(mut self) -> i32 {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let Ok(status) = ended else { panic!("it never ends:\n{}", self.stderr.borrow().join("\n")) };
        status.unwrap().code().unwrap()
    }
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static) -> Lines {
    let (sender, receiver) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            sender.send_modify(|lines| lines.push(line));
        }
    });
    receiver
}

async fn until_line(lines: &mut Lines, text: &str) -> String {
    let found = |lines: &Vec<String>| lines.iter().find(|line| line.contains(text)).cloned();
    let come = lines.wait_for(|lines| found(lines).is_some());
    match tokio::time::timeout(PATIENCE, come).await {
        Ok(Ok(lines)) => found(&lines).unwrap(),
        _ => panic!("no line has {text:?}"),
    }
}

fn descendants(root: i32) -> Vec<i32> {
    let parent = |pid: i32| -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
    };
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(i32, i32)> = all.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![root];
    let mut i = 0;
    while i < found.len() {
        let of = found[i];
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        i += 1;
    }
    found.split_off(1)
}
