// The @grpc/grpc-js peer that serves evenkeel.demo.v1.Echo and grpc.health.v1.
//
// Prints `listening on ADDRESS`, obeys the commands that README.md lists on its standard input, drains on SIGTERM
// and ends when its standard input closes.
'use strict';
const readline = require('node:readline');
const grpc = require('@grpc/grpc-js');
const { HealthImplementation } = require('grpc-health-check');
const { Echo, options, parseArguments } = require('./echo_proto');

const service = 'evenkeel.demo.v1.Echo';
const { values: flags } = parseArguments();
const seen = { calls: 0, cancelled: 0 };
const messages = [];

// One call's wishes, which its metadata states, and its end.
class Call {
  constructor(call, message) {
    this.call = call;
    this.sent = 0;
    this.over = new AbortController();
    this.trailers = new grpc.Metadata();
    for (const key of Object.keys(call.metadata.getMap())) {
      if (key.startsWith('x-echo-')) call.metadata.get(key).forEach((value) => this.trailers.add(key, value));
    }
    seen.calls += 1;
    if (message) messages.push(message);
    call.on('cancelled', () => {
      seen.cancelled += 1;
      this.over.abort();
    });
  }

  wish(key) {
    return this.call.metadata.get(`x-fail-${key}`)[0];
  }

  // Throws the failure that the metadata asks for once enough replies were sent; else opens the call.
  open(request) {
    const code = Number(this.wish('code') ?? 0);
    if (code && this.sent >= Number(this.wish('after') ?? 0)) throw this.failure(code, request.message);
    if (this.opened) return;
    this.opened = true;
    const initial = this.trailers.clone();
    initial.set('x-backend', flags.name);
    const left = Number(this.call.getDeadline()) - Date.now();
    if (Number.isFinite(left)) initial.set('x-deadline-ms', String(left));
    this.call.sendMetadata(initial);
  }

  failure(code, details) {
    const wanted = this.wish('details-bin');
    if (wanted) this.trailers.set('grpc-status-details-bin', wanted);
    return Object.assign(new Error(details), { code, details, metadata: this.trailers });
  }

  pause({ delay_ms: delay }) {
    if (!delay) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delay);
      this.over.signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); });
    });
  }

  // Writes one reply, no faster than the client reads.
  async write(request) {
    this.open(request);
    await this.pause(request);
    this.sent += 1;
    if (this.over.signal.aborted || this.call.write(reply(request))) return;
    await new Promise((resolve) => {
      this.call.once('drain', resolve);
      this.over.signal.addEventListener('abort', resolve);
    });
  }
}

const reply = ({ message, payload }) => ({ message, payload, backend: flags.name });

const handlers = {
  async Unary(call, callback) {
    const echo = new Call(call, call.request.message);
    try {
      // The pause comes first: initial metadata would commit the call, and no client could retry it.
      await echo.pause(call.request);
      echo.open(call.request);
      callback(null, reply(call.request), echo.trailers);
    } catch (failure) {
      callback(failure);
    }
  },

  async ClientStream(call, callback) {
    const echo = new Call(call);
    const received = [];
    try {
      for await (const request of call) {
        echo.open(request);
        received.push(request.message);
        await echo.pause(request);
      }
      callback(null, reply({ message: received.join(',') }), echo.trailers);
    } catch (failure) {
      callback(failure);
    }
  },

  async ServerStream(call) {
    const echo = new Call(call, call.request.message);
    try {
      for (let n = 0; n < call.request.repeat && !echo.over.signal.aborted; n += 1) await echo.write(call.request);
      echo.open(call.request);
      call.end(echo.trailers);
    } catch (failure) {
      call.emit('error', failure);
    }
  },

  async BidiStream(call) {
    const echo = new Call(call);
    try {
      // Leaving the loop must not close the half of the call that is still to be ended.
      for await (const request of call.iterator({ destroyOnReturn: false })) {
        for (let n = 0; n < Math.max(request.repeat, 1); n += 1) await echo.write(request);
      }
      call.end(echo.trailers);
    } catch (failure) {
      call.emit('error', failure);
    }
  },
};

const health = new HealthImplementation();
function setHealth(status) {
  health.setStatus('', status);
  health.setStatus(service, status);
  return { status };
}

const commands = {
  serving: () => setHealth('SERVING'),
  not_serving: () => setHealth('NOT_SERVING'),
  stats: () => seen,
  calls: () => messages,
};

const server = new grpc.Server(options);
server.addService(Echo.service, handlers);
health.addToServer(server);
setHealth('SERVING');
server.bindAsync(flags.listen, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`listening on 127.0.0.1:${port}`);
});
process.on('SIGTERM', () => server.tryShutdown(() => process.exit(0)));
readline.createInterface({ input: process.stdin })
  .on('line', (line) => console.log(JSON.stringify(commands[line]?.() ?? { error: `unknown command ${line}` })))
  .on('close', () => process.exit(0));
