"""Holds many streams open: WebSockets on one port, or gRPC streams on another. Each message is answered with its number."""
import asyncio
import sys

kind, address = sys.argv[1], sys.argv[2]


async def websockets():
    from websockets.asyncio.server import serve

    async def handle(connection):
        count = 0
        async for message in connection:
            await connection.send(f"{count} {message}")
            count += 1

    host, port = address.split(":")
    # Whoever is idle here is found by the other end.
    async with serve(handle, host, int(port), ping_interval=None, compression=None, backlog=2000) as server:
        await server.serve_forever()


async def grpc():
    import grpc.aio

    async def both(requests, context):
        count = 0
        async for request in requests:
            yield b"%d %s" % (count, request)
            count += 1

    server = grpc.aio.server()
    handlers = {"Both": grpc.stream_stream_rpc_method_handler(both)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.Echo", handlers),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


asyncio.run(websockets() if kind == "websockets" else grpc())
