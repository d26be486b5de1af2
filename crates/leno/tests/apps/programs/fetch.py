"""Fetches a file with Python's own client: one request a connection, several at once."""
import concurrent.futures
import sys
import urllib.request


def fetch(_):
    with urllib.request.urlopen(sys.argv[1] + "/large", timeout=30) as answer:
        return len(answer.read())


with concurrent.futures.ThreadPoolExecutor(5) as pool:
    lengths = list(pool.map(fetch, range(20)))
assert len(set(lengths)) == 1, lengths
print(f"urllib: {len(lengths)} times {lengths[0]}")
