//! WebSockets: servers and clients by Python's `websockets` and Node's `ws`, each client with each server.

use crate::scenario::{NODE, Need, PYTHON, Scenario};

/// The server by Python, both clients.
pub(crate) const PYTHON_SERVER: Scenario = Scenario {
    name: "ws-python",
    port: 8765,
    needs: &[PYTHON, NODE, Need::Program("node")],
    files: &[
        ("server.py", include_str!("programs/ws_server.py")),
        ("client.py", include_str!("programs/ws_client.py")),
        ("server.cjs", include_str!("programs/ws_server.cjs")),
        ("client.cjs", include_str!("programs/ws_client.cjs")),
    ],
    server: "exec $PYTHON server.py 127.0.0.1:$PORT",
    client: "
        echo by Python; $PYTHON client.py $HOST:$PORT \"$MARK\"
        echo by Node; node client.cjs $HOST:$PORT \"$MARK\"
    ",
    expect: &[
        "plain leno-mark-ws",
        "101 1000\n",
        "True permessage-deflate chat.v2",
        "agreed chat.v2 true",
        "large text True",
        "large text true",
        "large binary True",
        "large binary true",
        "fragments in three pieces",
        "fragments in two pieces",
        "empty ''",
        "ping True",
        "pong ping",
        "in order True",
        "in order true",
        "closed by us 4002 enough",
        "closed by the server 4001 as you asked",
        "pinged you answered",
        "server first True",
        "server first true",
        "at once 50",
    ],
    // Clients mask what they send, but servers do not.
    clear: true,
    ..Scenario::BARE
};

/// The server by Node, both clients.
pub(crate) const NODE_SERVER: Scenario =
    Scenario { name: "ws-node", port: 8766, server: "exec node server.cjs 127.0.0.1:$PORT", ..PYTHON_SERVER };

#[test]
fn websockets_with_a_python_server() {
    PYTHON_SERVER.check();
}

#[test]
fn websockets_with_a_node_server() {
    NODE_SERVER.check();
}
