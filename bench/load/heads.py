"""`python -m bench.load.heads URL KIND SECONDS`: one client whose heads have no end, over and over.

Prints, as one line of JSON, how often each status was the answer.
"""

import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from urllib.parse import urlsplit

_BEGUN = b"POST /api/v1/webhooks/orders/ HTTP/1.1\r\nHost: fellow\r\n"
KINDS: Mapping[str, tuple[bytes, bytes, int]] = {
    "200,000 fields": (_BEGUN, b"A: b\r\n" * 1_000, 200),
    "400,000 different names": (
        _BEGUN,
        b"".join(b"N%d: v\r\n" % number for number in range(400_000)),
        1,
    ),
    "one field of 200 MB": (_BEGUN + b"A: ", b"a" * 1_000_000, 200),
    "a path of 100,000 bytes": (b"GET /", b"p" * 100_000 + b" HTTP/1.1\r\nHost: fellow\r\n\r\n", 1),
}
"""What comes first, what comes behind it, and how often."""


def main() -> int:
    """Send; returns the exit code."""
    url, kind, seconds = sys.argv[1:]
    parts = urlsplit(url)
    begun, more, times = KINDS[kind]
    statuses: Counter[str] = Counter()
    deadline = time.monotonic() + float(seconds)
    while time.monotonic() < deadline:
        with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
            try:
                connection.sendall(begun)
                for _ in range(times):
                    connection.sendall(more)
                answer = connection.recv(65_536)
            except OSError as error:
                answer = b" " + type(error).__name__.encode()
        statuses[answer.split()[1].decode() if answer else "closed"] += 1
    print(json.dumps(statuses))
    return 0


if __name__ == "__main__":
    sys.exit(main())
