// gRPC's interop cases from @grpc/grpc-js: those it is given, in order, over one channel.
//
// Prints a line of JSON for each: {"case": …, "error": … or ""}.
'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { target: { type: 'string' }, ca: { type: 'string' } },
});
const definition = loader.loadSync('grpc/testing/test.proto', {
  includeDirs: [path.join(__dirname, '../client/protos')], keepCase: true, defaults: true,
});
const { TestService, UnimplementedService } = grpc.loadPackageDefinition(definition).grpc.testing;
const credentials = flags.ca ? grpc.credentials.createSsl(fs.readFileSync(flags.ca)) : grpc.credentials.createInsecure();
// A channel of its own has to have connections of its own, which grpc-js would share.
const connect = (Service) => new Service(flags.target, credentials, { 'grpc.use_local_subchannel_pool': 1 });
const client = connect(TestService);

// The sizes that the cases' descriptions name.
const largeRequest = 271828;
const largeReply = 314159;
const sentSizes = [27182, 8, 1828, 45904];
const replySizes = [31415, 9, 2653, 58979];
const oddMessage = '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n';
const soakedCalls = 10;
const [initialKey, trailingKey] = ['x-grpc-test-echo-initial', 'x-grpc-test-echo-trailing-bin'];
const echoed = { [initialKey]: 'test_initial_metadata_value', [trailingKey]: Buffer.from([0xab, 0xab, 0xab]) };

const payload = (size) => ({ body: Buffer.alloc(size) });
const sized = (sent, wanted) => ({ payload: payload(sent), response_size: wanted });
const asking = (wanted, sent = 0) => ({ response_parameters: wanted.map((size) => ({ size })), payload: payload(sent) });
const within = (ms = 20000) => ({ deadline: Date.now() + ms });

function withEchoes() {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(echoed)) metadata.set(key, value);
  return metadata;
}

// A call with one reply: that, or its error, with what it says of itself. `begin` starts it with a callback.
function single(begin) {
  return new Promise((resolve) => {
    const end = {};
    const call = begin((error, reply) => Object.assign(end, { error, reply }));
    call.on('metadata', (initial) => { end.initial = initial; });
    call.on('status', (status) => setImmediate(() => resolve({ ...end, trailers: status.metadata })));
  });
}

async function succeeded(begin) {
  const end = await single(begin);
  assert.equal(end.error, null);
  return end;
}

// A stream's end: the sizes of its replies, its status and initial metadata. `replied` is told of each reply.
function streamed(call, replied = () => {}) {
  const end = { sizes: [] };
  call.on('metadata', (initial) => { end.initial = initial; });
  call.on('data', (reply) => replied(end.sizes.push(reply.payload.body.length)));
  call.on('error', () => {});
  return new Promise((resolve) => call.on('status', (status) => resolve({ ...end, ...status })));
}

async function large(stub) {
  const { reply } = await succeeded((done) => stub.UnaryCall(sized(largeRequest, largeReply), within(), done));
  assert.equal(reply.payload.body.length, largeReply);
}

async function bothEndWith(message) {
  const response_status = { code: 2, message };
  const { error } = await single((done) => client.UnaryCall({ response_status }, within(), done));
  assert.deepEqual([error.code, error.details], [grpc.status.UNKNOWN, message]);
  const call = client.FullDuplexCall(within());
  call.end({ response_status });
  const { code, details } = await streamed(call);
  assert.deepEqual([code, details], [grpc.status.UNKNOWN, message]);
}

function echoes({ initial, trailers }) {
  assert.deepEqual(initial.get(initialKey), [echoed[initialKey]]);
  assert.deepEqual(trailers.get(trailingKey), [echoed[trailingKey]]);
}

async function unimplemented(stub) {
  const { error } = await single((done) => stub.UnimplementedCall({}, within(), done));
  assert.equal(error.code, grpc.status.UNIMPLEMENTED);
}

const cases = {
  empty_unary: () => succeeded((done) => client.EmptyCall({}, within(), done)),
  large_unary: () => large(client),
  async client_streaming() {
    const { reply } = await succeeded((done) => {
      const call = client.StreamingInputCall(within(), done);
      for (const size of sentSizes) call.write({ payload: payload(size) });
      call.end();
      return call;
    });
    assert.equal(reply.aggregated_payload_size, sentSizes.reduce((sum, size) => sum + size));
  },
  async server_streaming() {
    const { sizes, code } = await streamed(client.StreamingOutputCall(asking(replySizes), within()));
    assert.deepEqual([sizes, code], [replySizes, grpc.status.OK]);
  },
  async ping_pong() {
    const call = client.FullDuplexCall(within());
    const ask = (turn) => (turn < sentSizes.length ? call.write(asking([replySizes[turn]], sentSizes[turn])) : call.end());
    ask(0);
    const { sizes, code } = await streamed(call, ask);
    assert.deepEqual([sizes, code], [replySizes, grpc.status.OK]);
  },
  async empty_stream() {
    const call = client.FullDuplexCall(within());
    call.end();
    const { sizes, code } = await streamed(call);
    assert.deepEqual([sizes, code], [[], grpc.status.OK]);
  },
  async timeout_on_sleeping_server() {
    const call = client.FullDuplexCall(within(1));
    call.write(asking([], 27182));
    assert.equal(grpc.status[(await streamed(call)).code], 'DEADLINE_EXCEEDED');
  },
  async cancel_after_begin() {
    const { error } = await single((done) => {
      const call = client.StreamingInputCall(within(), done);
      call.cancel();
      return call;
    });
    assert.equal(error.code, grpc.status.CANCELLED);
  },
  async cancel_after_first_response() {
    const call = client.FullDuplexCall(within());
    call.write(asking([replySizes[0]], sentSizes[0]));
    const { sizes, code } = await streamed(call, () => call.cancel());
    assert.deepEqual([sizes, code], [[replySizes[0]], grpc.status.CANCELLED]);
  },
  status_code_and_message: () => bothEndWith('test status message'),
  special_status_message: () => bothEndWith(oddMessage),
  async custom_metadata() {
    echoes(await succeeded((done) => client.UnaryCall(sized(1, 1), withEchoes(), within(), done)));
    const call = client.FullDuplexCall(withEchoes(), within());
    call.end(asking([1], 1));
    const { initial, metadata: trailers } = await streamed(call);
    echoes({ initial, trailers });
  },
  unimplemented_method: () => unimplemented(client),
  unimplemented_service: () => unimplemented(connect(UnimplementedService)),
  async pick_first_unary() {
    const servers = new Set();
    for (let call = 0; call < 100; call += 1) {
      const request = { ...sized(1, 1), fill_server_id: true };
      servers.add((await succeeded((done) => client.UnaryCall(request, within(), done))).reply.server_id);
    }
    assert.equal(servers.size, 1);
    assert(!servers.has(''), 'the server does not say who it is');
  },
  async rpc_soak() {
    for (let call = 0; call < soakedCalls; call += 1) await large(client);
  },
  async channel_soak() {
    for (let call = 0; call < soakedCalls; call += 1) {
      const stub = connect(TestService);
      await large(stub);
      stub.close();
    }
  },
};

async function main() {
  for (const name of positionals) {
    const error = await cases[name]().then(() => '', (failure) => `${failure.message || failure}`);
    console.log(JSON.stringify({ case: name, error }));
  }
  process.exit(0);
}

main();
