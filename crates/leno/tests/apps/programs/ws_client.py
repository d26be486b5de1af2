"""A WebSocket client by Python's websockets."""
import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

base, mark = f"ws://{sys.argv[1]}", sys.argv[2]


def dial(path="/echo", **options):
    return connect(base + path, open_timeout=30, max_size=4 << 20, **options)


async def echoes(**options):
    async with dial(**options) as socket:
        await socket.send(mark)
        text = await socket.recv()
        await socket.send(bytes(range(256)))
        data = await socket.recv()
        return text, data == bytes(range(256)), socket


async def main():
    text, same, socket = await echoes(compression=None)
    print("plain", text, same, socket.response.status_code, socket.close_code)
    text, same, socket = await echoes(subprotocols=["chat.v1", "chat.v2"])
    extension = socket.response.headers.get("Sec-WebSocket-Extensions", "none").split(";")[0]
    print("with deflate", text, same, extension, socket.subprotocol)
    async with dial() as socket:
        large = mark * 40_000
        await socket.send(large)
        print("large text", await socket.recv() == large)
        large = bytes(range(256)) * 4096
        await socket.send(large)
        print("large binary", await socket.recv() == large)
        await socket.send(iter(["in ", "three ", "pieces"]))
        print("fragments", await socket.recv())
        await socket.send("")
        print("empty", repr(await socket.recv()))
        print("ping", await (await socket.ping()) >= 0)
        # A hundred before the first is read.
        for number in range(100):
            await socket.send(f"message {number}")
        print("in order", [await socket.recv() for _ in range(100)] == [f"message {number}" for number in range(100)])
        await socket.close(4002, "enough")
    print("closed by us", socket.close_code, socket.close_reason)
    async with dial("/close") as socket:
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            print("closed by the server", closed.rcvd.code, closed.rcvd.reason)
    async with dial("/ping") as socket:
        print("pinged", await socket.recv())
    async with dial("/first") as socket:
        print("server first", [int(message) async for message in socket] == list(range(100)))

    async def one(number):
        async with dial() as socket:
            for turn in range(10):
                await socket.send(f"{number} {turn}")
                assert await socket.recv() == f"{number} {turn}"
            return 1

    print("at once", sum(await asyncio.gather(*(one(number) for number in range(50)))))


asyncio.run(main())
