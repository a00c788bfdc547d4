//! The task of a connection: a turn reads all there is, and then writes all there is.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use anyhow::anyhow;
use evenkeel_balance::Time;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::{line::Line, with_line};

/// How much is read at a time, in bytes.
const READ: usize = 16 * 1024;

/// Moves a line's bytes until it is lost. Nothing is timed: a peer that is silent is waited for.
pub(super) async fn drive(line: usize, stream: TcpStream) {
    let mut driver = Driver { stream, input: vec![0; READ], began_at: Instant::now() };
    let lost = poll_fn(|cx| with_line(line, |line| driver.poll_turn(cx, line))).await;
    with_line(line, |line| line.lose(&lost));
}

struct Driver {
    stream: TcpStream,
    input: Vec<u8>,
    began_at: Instant,
}

impl Driver {
    /// Ready with the reason when the line is lost.
    fn poll_turn(&mut self, cx: &mut Context<'_>, line: &mut Line) -> Poll<anyhow::Error> {
        let now = Time::from_nanos(u64::try_from(self.began_at.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if let Err(lost) = self.read(cx, now, line).and_then(|()| self.write(cx, now, line)) {
            return Poll::Ready(lost);
        }
        line.rest(cx.waker());
        Poll::Pending
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Time, line: &mut Line) -> anyhow::Result<()> {
        loop {
            let mut buf = ReadBuf::new(&mut self.input);
            let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, &mut buf) else { return Ok(()) };
            result?;
            if buf.filled().is_empty() {
                return Err(anyhow!("the backend closed the connection"));
            }
            line.receive(now, buf.filled())?;
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, now: Time, line: &mut Line) -> anyhow::Result<()> {
        while !line.output().is_empty() {
            let Poll::Ready(result) = Pin::new(&mut self.stream).poll_write(cx, line.output()) else { return Ok(()) };
            line.consume(now, result?);
        }
        Ok(())
    }
}
