"""A gRPC server of all four kinds of calls. Messages are plain bytes, so that no code has to be generated."""
import sys
import threading
import time
from concurrent import futures

import grpc

seen = []
changed = threading.Condition()


def note(text):
    with changed:
        seen.append(text)
        changed.notify_all()


def unary(request, context):
    asked = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-first", "begin"), ("x-first-bin", bytes(range(256)))))
    context.set_trailing_metadata((("x-last", asked.get("x-ask", "")), ("x-last-bin", asked.get("x-ask-bin", b""))))
    return request


def up(requests, context):
    count = total = 0
    for request in requests:
        count += 1
        total += len(request)
    return b"%d messages, %d bytes" % (count, total)


def down(request, context):
    context.set_trailing_metadata((("x-last", "after the stream"),))
    for number in range(int(request)):
        yield b"%06d" % number


def both(requests, context):
    for request in requests:
        yield b"got " + request
    yield b"and that was all"


def fail(request, context):
    context.set_trailing_metadata((("x-why", "asked for"),))
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "w\u00f6rds with % and \u20ac")


def fail_late(request, context):
    yield b"one"
    yield b"two"
    context.abort(grpc.StatusCode.DATA_LOSS, "after two")


def slow(request, context):
    name = request.decode()
    remaining = context.time_remaining()
    note(f"{name} with a deadline: {remaining is not None and remaining < 3600}")
    ended = threading.Event()
    finished = False

    def end():
        note(f"{name} ended early: {not finished}")
        ended.set()

    if not context.add_callback(end):
        end()
    yield b"begun"
    ended.wait(30)
    finished = True


def report(request, context):
    """What the calls of a name saw, when there are two lines of it."""
    name = request.decode()
    end = time.monotonic() + 20
    with changed:
        while True:
            lines = [line for line in seen if line.startswith(name + " ")]
            if len(lines) >= 2 or not changed.wait(end - time.monotonic()):
                return "; ".join(lines).encode()


server = grpc.server(futures.ThreadPoolExecutor(32))
handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Slow": grpc.unary_stream_rpc_method_handler(slow),
    "Report": grpc.unary_unary_rpc_method_handler(report),
}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.Echo", handlers),))
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
