use std::{
    io,
    sync::mpsc as std_mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::sync::mpsc;

use self::{draw::draw, shot::Shot};
use super::{DemoError, record::Run};

mod draw;
mod shot;

/// How long a picture stands, unless a key is pressed.
const REFRESH: Duration = Duration::from_millis(100);

/// The live view of a run, on a thread of its own. Dropping it gives the terminal back.
#[derive(Debug)]
pub(super) struct View {
    /// Dropped to end the thread.
    open: Option<std_mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl View {
    /// Takes the terminal. `quit` is told when the user wants to leave.
    pub(super) fn start(run: Run, quit: mpsc::Sender<()>) -> Result<Self, DemoError> {
        let terminal = ratatui::try_init().map_err(DemoError::Terminal)?;
        let (open, closed) = std_mpsc::channel();
        let thread = thread::spawn(move || {
            if !matches!(show(terminal, &run, &closed), Ok(Ended::ByOwner)) {
                // A full queue means that the wish to leave is known.
                let _ = quit.try_send(());
            }
        });
        Ok(Self { open: Some(open), thread: Some(thread) })
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.open = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by its hook.
            let _ = thread.join();
        }
        ratatui::restore();
    }
}

enum Ended {
    ByOwner,
    ByUser,
}

fn show(mut terminal: DefaultTerminal, run: &Run, closed: &std_mpsc::Receiver<()>) -> io::Result<Ended> {
    while closed.try_recv() != Err(std_mpsc::TryRecvError::Disconnected) {
        let shot = Shot::take(&run.record(), run.now());
        terminal.draw(|frame| draw(frame, &shot))?;
        if event::poll(REFRESH)? && asks_to_leave(&event::read()?) {
            return Ok(Ended::ByUser);
        }
    }
    Ok(Ended::ByOwner)
}

/// In raw mode Ctrl-C is a key like any other.
fn asks_to_leave(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (ctrl_c || key.code == KeyCode::Char('q'))
}
