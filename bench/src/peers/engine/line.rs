//! A connection and its calls: what comes in wakes the call it is for, what a call sends wakes the driver.

use std::{
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use anyhow::{anyhow, bail, ensure};
use evenkeel_balance::Time;
use evenkeel_proto::demo::EchoReply;
use evenkeel_relay::{
    connection::{Connection, Event, Role, Settings, StreamKey},
    fields::{Field, Fields},
    frame::ErrorCode,
};
use prost::Message;

use crate::peers::request;

/// gRPC puts a flag and a length before each message.
const PREFIX: usize = 5;

/// One connection.
pub(super) struct Line {
    connection: Connection,
    authority: String,
    /// By tag. Those of calls that are over keep their memory for calls to come.
    calls: Vec<Call>,
    free: Vec<u32>,
    /// Calls that have no stream yet.
    waiting: VecDeque<Waker>,
    /// Set while the driver rests.
    driver: Option<Waker>,
    fields: Fields,
    /// A framed request, as it is written.
    request: Vec<u8>,
    lost: Option<String>,
}

/// A call that has a stream.
#[derive(Clone, Copy)]
pub(super) struct CallKey {
    tag: u32,
    stream: StreamKey,
}

#[derive(Default)]
struct Call {
    progress: Progress,
    reply: Vec<u8>,
    waker: Option<Waker>,
}

/// How far a call's response has come.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Sent,
    Answered,
    Ended,
    Failed,
}

impl Line {
    pub(super) fn new(authority: String) -> Self {
        Self {
            connection: Connection::new(Role::Client, &Rc::new(Settings::default()), Time::ZERO),
            authority,
            calls: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            driver: None,
            fields: Fields::new(),
            request: Vec::new(),
            lost: None,
        }
    }

    /// Sends a request as soon as the server allows another stream.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<CallKey>> {
        if let Some(lost) = &self.lost {
            return Poll::Ready(Err(anyhow!("{lost}")));
        }
        if self.connection.room() == 0 {
            self.waiting.push_back(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(self.open())
    }

    fn open(&mut self) -> anyhow::Result<CallKey> {
        self.frame_request()?;
        let tag = self.take_tag()?;
        let fields = head(&self.authority);
        let stream = self.connection.open(tag, fields.into_iter(), false).ok_or_else(|| anyhow!("no room"))?;
        let taken = self.connection.send_data(stream, &self.request, true);
        self.wake_driver();
        let key = CallKey { tag, stream };
        if taken < self.request.len() {
            self.close(key);
            bail!("the backend's window is closed");
        }
        Ok(key)
    }

    fn frame_request(&mut self) -> anyhow::Result<()> {
        let message = request();
        self.request.clear();
        self.request.push(0);
        self.request.extend(u32::try_from(message.encoded_len())?.to_be_bytes());
        Ok(message.encode(&mut self.request)?)
    }

    fn take_tag(&mut self) -> anyhow::Result<u32> {
        if let Some(tag) = self.free.pop() {
            return Ok(tag);
        }
        self.calls.push(Call::default());
        Ok(u32::try_from(self.calls.len() - 1)?)
    }

    /// Waits for the response's head.
    pub(super) fn poll_head(&mut self, key: CallKey, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        self.calls[key.tag as usize].poll_until(cx, |progress| progress != Progress::Sent)
    }

    /// Waits for the response's end, and decodes its message.
    pub(super) fn poll_reply(&mut self, key: CallKey, cx: &mut Context<'_>) -> Poll<anyhow::Result<EchoReply>> {
        let call = &mut self.calls[key.tag as usize];
        call.poll_until(cx, |progress| progress == Progress::Ended).map(|ended| ended.and_then(|()| call.message()))
    }

    /// The call is over for its caller.
    pub(super) fn close(&mut self, CallKey { tag, stream }: CallKey) {
        if self.calls[tag as usize].progress != Progress::Ended {
            self.connection.reset(stream, ErrorCode::CANCEL);
            self.wake_driver();
        }
        self.calls[tag as usize].clear();
        self.free.push(tag);
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Takes what has come, and wakes the calls that it is for. Fails when the connection is over.
    pub(super) fn receive(&mut self, now: Time, mut input: &[u8]) -> anyhow::Result<()> {
        while let Some(event) = self.connection.receive(now, &mut input, &mut self.fields) {
            let calls = &mut self.calls;
            match event {
                Event::Head { stream, ends, .. } => {
                    call_of(calls, &self.connection, stream).on_head(&self.fields, ends);
                }
                Event::Trailers { stream, .. } => call_of(calls, &self.connection, stream).on_trailers(&self.fields),
                Event::Data { stream, data, ends } => {
                    call_of(calls, &self.connection, stream).on_data(data, ends);
                    self.connection.release(stream, data.len());
                }
                Event::Reset { tag, .. } => calls[tag as usize].wake(Progress::Failed),
                Event::Broken { why, .. } => return Err(anyhow!("{why}")),
                Event::Settled | Event::Leaving { .. } | Event::Pong(_) => {}
            }
        }
        Ok(())
    }

    /// What is to be written.
    pub(super) fn output(&self) -> &[u8] {
        self.connection.output()
    }

    /// So much of the output is written.
    pub(super) fn consume(&mut self, now: Time, written: usize) {
        self.connection.consume(now, written);
    }

    /// The driver's turn is over: calls that wait for a stream get those that have become free, and the next output
    /// wakes the driver.
    pub(super) fn rest(&mut self, driver: &Waker) {
        self.driver = Some(driver.clone());
        let free = self.connection.room().min(self.waiting.len());
        self.waiting.drain(..free).for_each(Waker::wake);
    }

    /// The connection is over: all its calls fail.
    pub(super) fn lose(&mut self, why: &anyhow::Error) {
        self.lost = Some(format!("{}: {why:#}", self.authority));
        self.calls.iter_mut().for_each(|call| call.wake(Progress::Failed));
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

fn head(authority: &str) -> [Field<'_>; 7] {
    [
        Field::new(b":method", b"POST"),
        Field::new(b":scheme", b"http"),
        Field::new(b":authority", authority.as_bytes()),
        Field::new(b":path", b"/evenkeel.demo.v1.Echo/Unary"),
        Field::new(b"te", b"trailers"),
        Field::new(b"content-type", b"application/grpc"),
        Field::new(b"user-agent", b"engine-by-hand/1"),
    ]
}

/// The call of a stream. Events come of streams alone that have one.
fn call_of<'c>(calls: &'c mut [Call], connection: &Connection, stream: StreamKey) -> &'c mut Call {
    let tag = connection.tag(stream).expect("a stream keeps its tag until its last event is dealt with");
    &mut calls[tag as usize]
}

impl Call {
    fn poll_until(&mut self, cx: &Context<'_>, is_enough: fn(Progress) -> bool) -> Poll<anyhow::Result<()>> {
        if self.progress == Progress::Failed {
            return Poll::Ready(Err(anyhow!("the call failed")));
        }
        if is_enough(self.progress) {
            return Poll::Ready(Ok(()));
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn message(&self) -> anyhow::Result<EchoReply> {
        ensure!(self.reply.len() >= PREFIX, "no message");
        Ok(EchoReply::decode(&self.reply[PREFIX..])?)
    }

    /// A head that ends the stream carries the status, and no message can follow.
    fn on_head(&mut self, fields: &Fields, ends: bool) {
        let is_answer = fields.value(b":status") == Some(b"200") && !ends;
        self.wake(if is_answer { Progress::Answered } else { Progress::Failed });
    }

    fn on_data(&mut self, data: &[u8], ends: bool) {
        self.reply.extend_from_slice(data);
        if ends {
            // A response without trailers has no status.
            self.wake(Progress::Failed);
        }
    }

    fn on_trailers(&mut self, fields: &Fields) {
        let is_ok = self.progress == Progress::Answered && fields.value(b"grpc-status") == Some(b"0");
        self.wake(if is_ok { Progress::Ended } else { Progress::Failed });
    }

    fn wake(&mut self, progress: Progress) {
        self.progress = progress;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn clear(&mut self) {
        self.progress = Progress::Sent;
        self.reply.clear();
        self.waker = None;
    }
}
