"""Opens many streams and exchanges numbered messages on each, until a file `stop` is there. Says how it goes as JSON lines."""
import asyncio
import json
import os
import sys

kind, address, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
# Seconds between two messages of a stream.
PACE = 1.5
exchanged = [0] * count
opened = 0
troubles = []
stop = asyncio.Event()


async def exchange(number, send, receive):
    """One stream: every answer has the number of the message at the server, and the message."""
    global opened
    turn = 0
    while True:
        message = f"{number}:{turn}"
        await send(message)
        answer = await receive()
        if answer != f"{turn} {message}":
            raise ValueError(f"sent {message!r} as message {turn}, got {answer!r}")
        turn += 1
        exchanged[number] = turn
        opened += turn == 1
        if stop.is_set():
            return
        try:
            await asyncio.wait_for(stop.wait(), PACE)
        except TimeoutError:
            pass


async def websocket(number, gate):
    from websockets.asyncio.client import connect

    async with gate:
        connection = await connect(f"ws://{address}/", open_timeout=30, ping_interval=None, compression=None)
    await exchange(number, connection.send, connection.recv)
    await connection.close()
    if connection.close_code != 1000:
        raise ValueError(f"closed with {connection.close_code}")


async def stream(number, channels):
    call = channels[number % len(channels)].stream_stream("/tests.Echo/Both")()

    async def receive():
        return (await call.read()).decode()

    await exchange(number, lambda message: call.write(message.encode()), receive)
    await call.done_writing()
    import grpc

    if await call.read() is not grpc.aio.EOF:
        raise ValueError("a message that nobody asked for")
    if await call.code() is not grpc.StatusCode.OK:
        raise ValueError(f"ended with {await call.code()}")


async def guarded(number, work):
    try:
        await work
    except Exception as error:
        if len(troubles) < 10:
            print(f"stream {number} after {exchanged[number]} messages: {error!r}", file=sys.stderr)
        troubles.append(number)


async def main():
    if kind == "websockets":
        gate = asyncio.Semaphore(40)
        works = [websocket(number, gate) for number in range(count)]
    else:
        import grpc.aio

        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(20)]
        works = [stream(number, channels) for number in range(count)]
    tasks = asyncio.gather(*(guarded(number, work) for number, work in enumerate(works)))
    while not tasks.done():
        said = {"opened": opened, "least": min(exchanged), "all": sum(exchanged), "troubles": len(troubles)}
        print(json.dumps(said), flush=True)
        if os.path.exists("stop"):
            stop.set()
        await asyncio.wait([tasks], timeout=0.1)
    said = {"ended": count - len(troubles), "least": min(exchanged), "all": sum(exchanged), "troubles": len(troubles)}
    print(json.dumps(said), flush=True)


asyncio.run(main())
