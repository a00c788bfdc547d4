//! What children write.

use super::*;

/// What is written to it, for others to see.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) async fn output_is_forwarded_with_prefixes() {
    let (stdout, stderr) = (Written::default(), Written::default());
    let output = Output::to(Format::Text, stdout.clone(), stderr.clone());
    let processes = Processes::new(output.clone()).unwrap();
    // The last line has no end, and a process that is left behind keeps the pipe open.
    let child = processes.start(&sh("echo one; echo two >&2; sleep 1000 & printf three")).await.unwrap();
    child.exited().await;
    child.drained().await;
    output.flush().await;
    assert_eq!((stdout.text().as_str(), stderr.text().as_str()), ("case/0 | one\ncase/0 | three\n", "case/0 | two\n"));
    child.stop(Signal::KILL, SHORT).await.unwrap();
}

pub(super) async fn output_without_an_end_is_cut() {
    let stdout = Written::default();
    let output = Output::to(Format::Text, stdout.clone(), std::io::sink());
    let processes = Processes::new(output.clone()).unwrap();
    let child = processes.start(&sh("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end")).await.unwrap();
    child.exited().await;
    child.drained().await;
    output.flush().await;
    let text = stdout.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 17, "16 pieces and the last line");
    assert!(lines[0].starts_with("case/0 | xxx") && lines[0].len() == 9 + 65536);
    assert!(lines[1..16].iter().all(|line| line.starts_with("case/0 + xxx")));
    assert_eq!((text.matches('x').count(), lines[16]), (1_000_000, "case/0 | end"));
    assert!(child.last_lines().iter().all(|line| line.line.len() <= 1024));
}

/// A stream whose reader has stopped reading, until it is let go.
struct Stuck(std::sync::mpsc::Receiver<()>, Written);

impl std::io::Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.recv();
        self.1.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) async fn a_reader_that_is_stuck_holds_up_no_exit() {
    let (let_go, stuck) = std::sync::mpsc::channel();
    let (stdout, stderr) = (Written::default(), Written::default());
    let output = Output::to(Format::Text, Stuck(stuck, stdout.clone()), stderr.clone());
    let processes = Processes::new(output.clone()).unwrap();
    let flood = processes.start(&sh("yes 0123456789")).await.unwrap();
    let quiet = processes.start(&sh("echo words; echo errors >&2; exit 5")).await.unwrap();
    assert_eq!(quiet.exited().await, Exit::Code(5));
    until(|| stderr.text() == "case/0 | errors\n").await;
    // It waits in its own write: the kernel says where.
    until(|| state(flood.pid()).is_some_and(|(state, _)| state == "S")).await;
    let memory = resident_kib();
    let stopped = flood.stop(Signal::TERM, LONG).await.unwrap();
    assert_eq!((stopped.exit, stopped.killed.len()), (Some(Exit::Signal(15)), 0));
    assert!(resident_kib() < memory + 10_000, "nothing grows");
    drop(let_go);
    quiet.drained().await;
    output.flush().await;
    assert!(stdout.text().contains("case/0 | words\n"));
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

pub(super) async fn a_flood_does_not_silence_others() {
    let stdout = Written::default();
    let output = Output::to(Format::Text, Discarding(stdout.clone()), std::io::sink());
    let processes = Processes::new(output.clone()).unwrap();
    let flood = processes.start(&sh("exec yes")).await.unwrap();
    written(&flood, "y").await;
    let memory = resident_kib();
    for _ in 0..10 {
        let quiet = processes.start(&Command { replica: "quiet/0".to_owned(), ..sh("echo heard") }).await.unwrap();
        quiet.exited().await;
        quiet.drained().await;
    }
    until(|| stdout.text().matches("quiet/0 | heard").count() == 10).await;
    assert!(resident_kib() < memory + 20_000, "nothing grows: {memory} KiB before, {} after", resident_kib());
    flood.stop(Signal::TERM, LONG).await.unwrap();
}

/// Keeps what is not the flood's.
struct Discarding(Written);

impl std::io::Write for Discarding {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let kept: Vec<&[u8]> =
            bytes.split_inclusive(|byte| *byte == b'\n').filter(|l| !l.starts_with(b"case/0")).collect();
        self.0.write_all(&kept.concat())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
