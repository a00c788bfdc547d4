// The @grpc/grpc-js peer that calls evenkeel.demo.v1.Echo: the cases it is given, in order, over one channel.
//
// Prints a line of JSON for each: {"case": …, "error": … or "", "counts": …}. README.md says what each case proves.
'use strict';
const assert = require('node:assert/strict');
const { setTimeout: sleep } = require('node:timers/promises');
const { promisify } = require('node:util');
const grpc = require('@grpc/grpc-js');
const { Echo, options, parseArguments } = require('./echo_proto');

const { values: flags, positionals } = parseArguments();
const config = flags['service-config'];
const client = new Echo(`ipv4:${flags.target}`, grpc.credentials.createInsecure(), {
  ...options, ...(config && { 'grpc.service_config': config }),
});

const oddMessage = 'naïve ☃ 100% 😈\n\tend';
// Duplicates, an order that sorting would break, commas, and bytes that are no text.
const bytes = Buffer.from([0, 0xff, 0x80, 0x2c]);
const echoed = {
  'x-echo-text': ['one', 'two', 'one', 'a, b;c'],
  'x-echo-other': ['v'.repeat(2000)],
  'x-echo-data-bin': [bytes, Buffer.from('second'), bytes],
};

function wishes(fixed, ...groups) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(fixed)) metadata.set(key, value);
  for (const group of groups) {
    for (const [key, values] of Object.entries(group)) values.forEach((value) => metadata.add(key, value));
  }
  return metadata;
}

const within = (seconds) => ({ deadline: Date.now() + seconds * 1000 });

// A unary call's end: its error or reply, initial metadata and trailers.
function unaryCall(request, { metadata = new grpc.Metadata(), seconds = 60 } = {}) {
  return new Promise((resolve) => {
    const end = {};
    const call = client.Unary(request, metadata, within(seconds), (error, reply) => Object.assign(end, { error, reply }));
    call.on('metadata', (initial) => { end.initial = initial; });
    call.on('status', (status) => setImmediate(() => resolve({ ...end, trailers: status.metadata })));
  });
}

// A stream's end: its replies, error, initial metadata and trailers.
function streamEnd(call, pace = async () => {}) {
  const end = { replies: 0, messages: [] };
  call.on('metadata', (initial) => { end.initial = initial; });
  const status = new Promise((resolve) => { call.on('status', resolve); });
  const read = (async () => {
    for await (const reply of call) {
      end.messages.push(reply.message);
      await pace(end.messages.length);
    }
  })().catch((error) => { end.error = error; });
  return Promise.all([status, read]).then(([{ metadata, code, details }]) => ({ ...end, trailers: metadata, code, details }));
}

async function echoes(payload) {
  const { error, reply } = await unaryCall({ message: 'hello', payload });
  if (error) throw error;
  assert.equal(reply.message, 'hello');
  assert(payload.equals(reply.payload), `got ${reply.payload.length} bytes back`);
}

// Node's HTTP/2 joins repeated text values with ", ", which gRPC calls equivalent; values of bytes stay apart.
function sameEchoes(where, metadata) {
  for (const [key, values] of Object.entries(echoed)) {
    const [got, sent] = [metadata.get(key), values].map((list) => (key.endsWith('-bin') ? list : list.join(', ')));
    assert.deepEqual(got, sent, `${where}: ${key}`);
  }
}

// A protobuf field of bytes shorter than 128.
const field = (number, value) => Buffer.concat([Buffer.from([(number << 3) | 2, value.length]), Buffer.from(value)]);

function clientStreaming() {
  let call;
  const reply = new Promise((resolve, reject) => {
    call = client.ClientStream(new grpc.Metadata(), within(60), (error, value) => (error ? reject(error) : resolve(value)));
  });
  return { call, reply };
}

const cases = {
  unary: () => echoes(Buffer.from('payload')),
  large: () => echoes(Buffer.alloc(32 << 20, '0123456789abcdef')),

  async client_stream() {
    const { call, reply } = clientStreaming();
    for (const message of 'abc') call.write({ message });
    call.end();
    assert.equal((await reply).message, 'a,b,c');
  },

  async server_stream() {
    const end = await streamEnd(client.ServerStream({ message: 'again', repeat: 5 }, within(60)));
    assert.deepEqual([end.code, end.messages], [grpc.status.OK, Array(5).fill('again')]);
  },

  async bidi_stream() {
    const call = client.BidiStream(within(60));
    const rest = ['pong', 'end'];
    call.write({ message: 'ping' });
    const end = await streamEnd(call, async () => (rest.length ? call.write({ message: rest.shift() }) : call.end()));
    assert.deepEqual([end.code, end.messages], [grpc.status.OK, ['ping', 'pong', 'end']]);
  },

  async metadata() {
    const metadata = wishes({}, echoed);
    const unary = await unaryCall({ message: 'm' }, { metadata });
    if (unary.error) throw unary.error;
    const stream = await streamEnd(client.ServerStream({ message: 'm', repeat: 1 }, metadata, within(60)));
    for (const [kind, end] of Object.entries({ unary, stream })) {
      sameEchoes(`${kind} initial`, end.initial);
      sameEchoes(`${kind} trailing`, end.trailers);
    }
  },

  async trailers_only() {
    const end = await unaryCall({ message: oddMessage }, { metadata: wishes({ 'x-fail-code': '9' }, echoed) });
    assert.deepEqual([end.error?.code, end.error?.details], [grpc.status.FAILED_PRECONDITION, oddMessage]);
    sameEchoes('trailing', end.trailers);
  },

  async error_after_messages() {
    const metadata = wishes({ 'x-fail-code': '15', 'x-fail-after': '2' });
    const end = await streamEnd(client.ServerStream({ message: oddMessage, repeat: 5 }, metadata, within(60)));
    assert.deepEqual([end.code, end.details, end.messages.length], [grpc.status.DATA_LOSS, oddMessage, 2]);
  },

  async status_details() {
    // google.rpc.Status { code: 9, message: "no cheese", details: [Any { type_url, value }] }
    const detail = Buffer.concat([field(1, 'type.googleapis.com/example.Detail'), field(2, [0x0a, 1, 0x78])]);
    const status = Buffer.concat([Buffer.from([0x08, 9]), field(2, 'no cheese'), field(3, detail)]);
    const metadata = wishes({ 'x-fail-code': '9', 'x-fail-details-bin': status });
    const end = await unaryCall({ message: 'no cheese' }, { metadata });
    assert.deepEqual([end.error?.code, end.error?.details], [grpc.status.FAILED_PRECONDITION, 'no cheese']);
    assert.deepEqual(end.trailers.get('grpc-status-details-bin'), [status]);
  },

  async deadline() {
    const seen = await unaryCall({ message: 'm' }, { seconds: 10 });
    const left = Number(seen.initial?.get('x-deadline-ms')[0]);
    assert(left > 0 && left <= 10_200, `the backend saw the deadline as ${left} ms`);
    const { error } = await unaryCall({ message: 'm', delay_ms: 20_000 }, { seconds: 0.3 });
    assert.equal(error?.code, grpc.status.DEADLINE_EXCEEDED);
  },

  async cancel() {
    const waiting = client.ServerStream({ message: 'm', repeat: 1, delay_ms: 60_000 }, within(60));
    const open = client.BidiStream(within(60));
    const ends = [waiting, open].map((call) => new Promise((resolve) => { call.on('status', resolve).on('error', () => {}); }));
    // Before its reset, Node may end the call in good order: a backend that waits for requests would take that for the end.
    open.write({ message: 'm', delay_ms: 60_000 });
    await Promise.all([waiting, open].map((call) => new Promise((resolve) => { call.once('metadata', resolve); })));
    for (const call of [waiting, open]) call.on('data', () => {}).cancel();
    for (const { code } of await Promise.all(ends)) assert.equal(code, grpc.status.CANCELLED);
  },

  async slow_reader() {
    const call = client.ServerStream({ payload: Buffer.alloc(1 << 20), repeat: 400 }, within(60));
    const end = await streamEnd(call, (received) => sleep(received === 1 ? 1500 : 2));
    assert.deepEqual([end.code, end.messages.length], [grpc.status.OK, 400]);
  },

  async slow_backend() {
    const { call, reply } = clientStreaming();
    const payload = Buffer.alloc(1 << 20);
    for (let sent = 0; sent < 200; sent += 1) {
      const more = call.write({ payload, delay_ms: sent ? 5 : 1500 });
      if (!more) await new Promise((resolve) => { call.once('drain', resolve); });
    }
    call.end();
    await reply;
  },

  // Counts which backend answers each of 300 unary calls, once calls of another method have reached all three.
  async spread() {
    await promisify(client.waitForReady.bind(client))(Date.now() + 10_000);
    const limit = Date.now() + 10_000;
    for (const reached = new Set(); reached.size < 3;) {
      assert(Date.now() < limit, `within 10 s only ${[...reached]} could be reached`);
      for await (const { backend } of client.ServerStream({ repeat: 1 }, within(10))) reached.add(backend);
    }
    const counts = {};
    for (let n = 0; n < 300; n += 1) {
      const { error, reply } = await unaryCall({ message: 'spread' });
      if (error) throw error;
      counts[reply.backend] = (counts[reply.backend] ?? 0) + 1;
    }
    return counts;
  },

  async in_flight() {
    const stream = client.ServerStream({ message: 'm', repeat: 20, delay_ms: 100 }, within(60));
    const opened = new Promise((resolve) => { stream.once('metadata', resolve); });
    const streamed = streamEnd(stream);
    const calls = Array.from({ length: 10 }, () => unaryCall({ message: 'm', delay_ms: 2000 }));
    await opened;
    // The ten are on the wire by then: they need no answer to be so.
    await sleep(300);
    console.log('started');
    const end = await streamed;
    assert.deepEqual([end.code, end.messages.length], [grpc.status.OK, 20]);
    for (const { error } of await Promise.all(calls)) if (error) throw error;
  },
};

async function main() {
  for (const name of positionals) {
    let line;
    try {
      line = { case: name, counts: await cases[name](), error: '' };
    } catch (error) {
      line = { case: name, error: error.message };
    }
    console.log(JSON.stringify(line));
  }
  client.close();
}

main();
