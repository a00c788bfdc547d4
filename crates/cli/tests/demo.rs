//! The built binary's demo, its processes and its exit codes.

use std::{
    error::Error,
    io::{BufRead, BufReader, Lines, Read},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Far longer than anything here takes: what is not over by then never will be.
const NEVER: Duration = Duration::from_secs(60);

fn demo(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(["demo", "--duration", "6s", "--rps", "200"]).args(options);
    command
}

#[test]
fn no_call_fails_and_the_json_says_how_each_fault_was_taken() -> Outcome {
    let run = Running::start(&["--json"])?;
    let (status, stdout, told) = run.end()?;
    assert_eq!(status.code(), Some(0), "{told}");
    let summary: Value = serde_json::from_str(&stdout)?;
    assert_eq!(summary["passed"], true);
    for face in ["proxy", "channel"] {
        let seen = &summary["faces"][face];
        assert_eq!(seen["failed"], 0, "{summary}");
        assert!(seen["calls"].as_u64().is_some_and(|calls| calls > 300), "half of 200 a second: {seen}");
        for backend in ["a", "b", "c"] {
            assert!(seen["answered_by"][backend].as_u64().is_some_and(|calls| calls > 0), "{seen}");
        }
        for act in summary["acts"].as_array().ok_or("no acts")? {
            for time in ["detect_ms", "ready_ms", "return_ms"] {
                assert!(act[face][time].as_f64().is_some_and(|ms| ms >= 0.0), "{time} of {act}\n{told}");
            }
            assert_eq!(act[face]["calls_while_out"], 0, "{act}\n{told}");
        }
    }
    assert_eq!(summary["pids"].as_array().map(Vec::len), Some(4), "three, and one started again");
    Ok(())
}

#[test]
fn an_interrupt_leaves_no_process_behind() -> Outcome {
    let mut run = Running::start(&[])?;
    run.await_line("c: SIGSTOP")?;
    run.signal(Signal::INT)?;
    let (status, _, complaints) = run.end()?;
    assert_eq!((status.code(), &*complaints), (Some(130), ""));
    Ok(())
}

#[test]
fn backends_end_even_if_the_demo_is_killed_while_one_is_stopped() -> Outcome {
    let mut run = Running::start(&[])?;
    run.await_line("c: SIGSTOP")?;
    run.signal(Signal::KILL)?;
    let (status, ..) = run.end()?;
    assert_eq!(status.code(), None);
    Ok(())
}

/// A demo under way.
struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    /// All of standard error, once no process holds it any more: the backends inherit the demo's.
    stderr: mpsc::Receiver<String>,
}

impl Running {
    fn start(options: &[&str]) -> Outcome<Self> {
        let mut child = demo(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let mut pipe = child.stderr.take().ok_or("no stderr")?;
        let (said, stderr) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            // The receiver is gone if the test has failed already.
            let _ = pipe.read_to_string(&mut text).map(|_| said.send(text));
        });
        Ok(Self { child, stdout, stderr })
    }

    fn await_line(&mut self, text: &str) -> Outcome {
        for line in &mut self.stdout {
            if line?.contains(text) {
                return Ok(());
            }
        }
        Err(format!("the demo ended without saying {text:?}").into())
    }

    fn signal(&self, signal: Signal) -> Outcome {
        let pid = Pid::from_raw(self.child.id().cast_signed()).ok_or("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until the demo and every process that it started are gone; what was said is returned with its status.
    fn end(mut self) -> Outcome<(ExitStatus, String, String)> {
        let lines = self.stdout.collect::<Result<Vec<_>, _>>()?;
        let status = self.child.wait()?;
        let stderr = self.stderr.recv_timeout(NEVER).map_err(|_| "a backend was left behind")?;
        Ok((status, lines.join("\n"), stderr))
    }
}
