// A WebSocket server by Node's ws: what it does is said by the path.
const { WebSocketServer } = require('ws');

const [host, port] = process.argv[2].split(':');
const server = new WebSocketServer({
  host, port: Number(port), maxPayload: 4 << 20, perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => (offered.has('chat.v2') ? 'chat.v2' : false),
});
server.on('connection', (socket, request) => {
  if (request.url === '/close') socket.close(4001, 'as you asked');
  else if (request.url === '/ping') {
    socket.once('pong', (data) => socket.send(data.toString() === 'are you there' ? 'you answered' : 'wrong pong'));
    socket.ping('are you there');
  } else if (request.url === '/first') {
    for (let number = 0; number < 100; number++) socket.send(String(number));
    socket.close();
  } else socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});
