"""A WebSocket server by Python's websockets: what it does is said by the path."""
import asyncio
import sys

from websockets.asyncio.server import serve


async def handle(connection):
    path = connection.request.path
    if path == "/close":
        await connection.close(4001, "as you asked")
    elif path == "/ping":
        await (await connection.ping(b"are you there"))
        await connection.send("you answered")
    elif path == "/first":
        # The server speaks first, in the same turn as its answer to the handshake.
        for number in range(100):
            await connection.send(f"{number}")
    else:
        async for message in connection:
            await connection.send(message)


def choose(connection, offered):
    return "chat.v2" if "chat.v2" in offered else None


async def main():
    host, port = sys.argv[1].rsplit(":", 1)
    async with serve(handle, host, int(port), select_subprotocol=choose, max_size=4 << 20) as server:
        await server.serve_forever()


asyncio.run(main())
