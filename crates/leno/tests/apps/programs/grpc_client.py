"""Every kind of gRPC call, its metadata, its deadline and its cancellation, as a client sees them."""
import queue
import sys
import threading
import time
import uuid

import grpc

address, mark = sys.argv[1], sys.argv[2]
channel = grpc.insecure_channel(address)
grpc.channel_ready_future(channel).result(timeout=30)


def call(kind, name):
    return getattr(channel, kind)("/tests.Echo/" + name)


unary, up, down, both = (
    call("unary_unary", "Unary"),
    call("stream_unary", "Up"),
    call("unary_stream", "Down"),
    call("stream_stream", "Both"),
)

# Unary, with metadata both ways.
metadata = (("x-ask", mark), ("x-ask-bin", b"\x00\xff, and bytes"))
answer, about = unary.with_call(mark.encode(), metadata=metadata, timeout=20)
print("unary", answer.decode())
first, last = dict(about.initial_metadata()), dict(about.trailing_metadata())
print("initial", first["x-first"], first["x-first-bin"] == bytes(range(256)))
print("trailing", last["x-last"], last["x-last-bin"], about.code())

# Sizes: nothing, a mebibyte each way, and more than a client takes.
print("empty", unary(b"", timeout=20))
large = bytes(range(256)) * 4096
print("large", unary(large, timeout=20) == large)
print("compressed", unary(large, timeout=20, compression=grpc.Compression.Gzip) == large)
try:
    unary(bytes(5 << 20), timeout=20)
except grpc.RpcError as error:
    print("too large", error.code())

# Streams.
print("client stream", up((b"x" * number for number in range(500)), timeout=20).decode())
print("large client stream", up((large for _ in range(4)), timeout=20).decode())
stream = down(b"5000", timeout=20)
numbers = list(stream)
print("server stream", len(numbers), numbers == [b"%06d" % number for number in range(5000)])
print("its trailer", dict(stream.trailing_metadata())["x-last"])
print("no message", list(down(b"0", timeout=20)))
# One message after the other: each is answered before the next is sent.
turns = queue.Queue()
stream = both(iter(turns.get, None), timeout=20)
for number in range(200):
    turns.put(b"%d" % number)
    assert next(stream) == b"got %d" % number
turns.put(None)
print("bidirectional", [message.decode() for message in stream], stream.code())
print("both at once", len(list(both((large[:10_000] for _ in range(300)), timeout=20))))

# Failures, before and after messages.
try:
    call("unary_unary", "Fail")(b"", timeout=20)
except grpc.RpcError as error:
    print("failed", error.code(), error.details(), dict(error.trailing_metadata())["x-why"])
got = []
try:
    for message in call("unary_stream", "FailLate")(b"", timeout=20):
        got.append(message.decode())
except grpc.RpcError as error:
    print("failed late", got, error.code(), error.details())
try:
    call("unary_unary", "Absent")(b"", timeout=20)
except grpc.RpcError as error:
    print("absent", error.code())

# A deadline that passes and a call that is cancelled: the server notices both.
slow, report = call("unary_stream", "Slow"), call("unary_unary", "Report")
name = f"deadline-{uuid.uuid4()}"
try:
    list(slow(name.encode(), timeout=0.4))
except grpc.RpcError as error:
    print("deadline", error.code())
print("at the server:", report(name.encode(), timeout=25).decode().replace(name, "deadline"))
name = f"cancelled-{uuid.uuid4()}"
stream = slow(name.encode())
print("begun", next(stream))
stream.cancel()
try:
    next(stream)
except grpc.RpcError as error:
    print("cancelled", error.code())
print("at the server:", report(name.encode(), timeout=25).decode().replace(name, "cancelled"))

# Many streams at once, on one connection and on several.
results = []


def ask(over, number):
    message = b"%d" % number
    results.append(over.unary_unary("/tests.Echo/Unary")(message, timeout=30) == message)


channels = [channel] + [
    grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(3)
]
threads = [threading.Thread(target=ask, args=(channels[number % 4], number)) for number in range(100)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("at once", len(results), all(results))
