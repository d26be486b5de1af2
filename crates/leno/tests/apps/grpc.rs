//! gRPC by Python's `grpcio`, which is the C core: all four kinds of calls, deadlines, cancellation, metadata.

use crate::scenario::{PYTHON, Scenario};

/// A server and a client of gRPC.
pub(crate) const GRPC: Scenario = Scenario {
    name: "grpc",
    port: 50051,
    needs: &[PYTHON],
    files: &[
        ("server.py", include_str!("programs/grpc_server.py")),
        ("client.py", include_str!("programs/grpc_client.py")),
    ],
    server: "exec $PYTHON server.py 127.0.0.1:$PORT",
    client: "exec $PYTHON client.py $HOST:$PORT \"$MARK\"",
    expect: &[
        "unary leno-mark-grpc-seen\n",
        "initial begin True",
        "trailing leno-mark-grpc-seen b'\\x00\\xff, and bytes' StatusCode.OK",
        "empty b''",
        "large True",
        "compressed True",
        "too large StatusCode.RESOURCE_EXHAUSTED",
        "client stream 500 messages, 124750 bytes",
        "large client stream 4 messages, 4194304 bytes",
        "server stream 5000 True",
        "its trailer after the stream",
        "no message []",
        "bidirectional ['and that was all'] StatusCode.OK",
        "both at once 301",
        "failed StatusCode.INVALID_ARGUMENT wörds with % and € asked for",
        "failed late ['one', 'two'] StatusCode.DATA_LOSS after two",
        "absent StatusCode.UNIMPLEMENTED",
        "deadline StatusCode.DEADLINE_EXCEEDED",
        "deadline with a deadline: True; deadline ended early: True",
        "cancelled StatusCode.CANCELLED",
        "cancelled with a deadline: False; cancelled ended early: True",
        "at once 100 True",
    ],
    ..Scenario::BARE
};

#[test]
fn grpc_of_every_kind() {
    GRPC.check();
}
