"""memcached's meta and text protocols on one connection: pipelined, with a large value, and with many keys."""
import socket
import sys

connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
stream = connection.makefile("rwb")


def say(*lines):
    stream.write(b"".join(line + b"\r\n" for line in lines))
    stream.flush()


def hear():
    return stream.readline().rstrip(b"\r\n")


large = bytes(range(256)) * 4096
say(b"set large 7 0 %d" % len(large), large)
print(hear().decode())
say(b"get large")
print(hear().decode())
body = stream.read(len(large) + 2)
assert body == large + b"\r\n", "other bytes came back"
print(len(body) - 2, "bytes came back")
assert hear() == b"END"
# A thousand commands before the first answer is read.
say(*[b"set key%d 0 0 5\r\nv%04d" % (number, number) for number in range(1000)])
assert all(hear() == b"STORED" for _ in range(1000))
say(*[b"mg key%d v" % number for number in range(1000)])
for number in range(1000):
    assert hear() == b"VA 5" and hear() == b"v%04d" % number, number
print("1000 pipelined")
say(b"incr key1 1", b"delete key2", b"get key2", b"quit")
print(stream.read().decode())
