// The demo service as @grpc/grpc-js sees it, loaded from its proto.
'use strict';
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const protos = path.join(__dirname, '../../crates/proto/protos');
const definition = loader.loadSync('evenkeel/demo/v1/echo.proto', {
  includeDirs: [protos], keepCase: true, defaults: true,
});
const maxMessage = 64 << 20;

exports.Echo = grpc.loadPackageDefinition(definition).evenkeel.demo.v1.Echo;
exports.options = {
  'grpc.max_receive_message_length': maxMessage,
  'grpc.max_send_message_length': maxMessage,
};
exports.parseArguments = () => require('node:util').parseArgs({
  allowPositionals: true,
  options: {
    listen: { type: 'string', default: '127.0.0.1:0' },
    name: { type: 'string', default: 'node' },
    target: { type: 'string' },
    'service-config': { type: 'string' },
  },
});
