//! Requests over two real ends of the mesh transport, whose connections are cut anywhere.
