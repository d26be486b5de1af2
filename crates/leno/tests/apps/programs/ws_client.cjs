// A WebSocket client by Node's ws.
const { once } = require('node:events');
const WebSocket = require('ws');

const [, , address, mark] = process.argv;
const fail = setTimeout(() => { console.error('too slow'); process.exit(1); }, 45_000);

async function dial(path = '/echo', protocols = [], options = {}) {
  const socket = new WebSocket(`ws://${address}${path}`, protocols, { handshakeTimeout: 30_000, ...options });
  const received = [];
  const waiting = [];
  socket.on('message', (data, isBinary) => {
    const message = isBinary ? data : data.toString();
    const next = waiting.shift();
    if (next) next(message); else received.push(message);
  });
  socket.hear = () => received.length ? Promise.resolve(received.shift()) : new Promise((done) => waiting.push(done));
  socket.ended = once(socket, 'close');
  await once(socket, 'open');
  return socket;
}

async function main() {
  let socket = await dial('/echo', [], { perMessageDeflate: false });
  socket.send(mark);
  console.log('plain', await socket.hear(), JSON.stringify(socket.extensions));
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, number) => number));
  socket.send(bytes);
  console.log('binary', bytes.equals(await socket.hear()));
  socket.close(1000);
  console.log('closed', (await socket.ended)[0]);

  socket = await dial('/echo', ['chat.v1', 'chat.v2']);
  console.log('agreed', socket.protocol, socket.extensions.includes('permessage-deflate'));
  const large = Buffer.concat(Array(4096).fill(bytes));
  socket.send(large);
  console.log('large binary', large.equals(await socket.hear()));
  socket.send(mark.repeat(40_000));
  console.log('large text', (await socket.hear()) === mark.repeat(40_000));
  socket.send('in ', { fin: false });
  socket.send('two pieces', { fin: true });
  console.log('fragments', await socket.hear());
  socket.ping('ping');
  console.log('pong', (await once(socket, 'pong'))[0].toString());
  for (let number = 0; number < 100; number++) socket.send(`message ${number}`);
  let same = true;
  for (let number = 0; number < 100; number++) same &&= (await socket.hear()) === `message ${number}`;
  console.log('in order', same);
  socket.close(4002, 'enough');
  console.log('closed by us', (await socket.ended)[0]);

  socket = await dial('/close');
  const [code, reason] = await socket.ended;
  console.log('closed by the server', code, reason.toString());
  socket = await dial('/ping');
  console.log('pinged', await socket.hear());
  socket.close();
  socket = await dial('/first');
  same = true;
  for (let number = 0; number < 100; number++) same &&= (await socket.hear()) === String(number);
  console.log('server first', same);

  const one = async (number) => {
    const socket = await dial();
    for (let turn = 0; turn < 10; turn++) {
      socket.send(`${number} ${turn}`);
      if ((await socket.hear()) !== `${number} ${turn}`) throw new Error('another message');
    }
    socket.close();
    await socket.ended;
  };
  await Promise.all(Array.from({ length: 50 }, (_, number) => one(number)));
  console.log('at once', 50);
  clearTimeout(fail);
}

main().catch((error) => { console.error(error); process.exit(1); });
