"""A process that says what it finds itself in, does as it is told, and ends."""

import atexit
import io
import json
import os
import random
import resource
import secrets
import signal
import sys
import threading
import time
import uuid
from typing import TextIO

from shared.ids import new_id

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)


def portrait() -> dict[str, object]:
    """What a program can see of how it was started."""
    return {
        "arguments": sys.argv,
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "path": sys.path,
        "main": sys.modules["__main__"].__spec__.name,
        "leads": os.getpid() == os.getsid(0) == os.getpgid(0),
        "input": sys.stdin.read(),
        "streams": [_stream(one) for one in (sys.stdin, sys.stdout, sys.stderr)],
        "signals": [str(signal.getsignal(one)) for one in SIGNALS],
        "blocked": [str(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
        "files": [os.readlink(f"/proc/self/fd/{number}") for number in _files()],
        "threads": threading.active_count(),
        "zone": time.tzname,
        "flags": str(sys.flags),
    }


def _stream(one: TextIO) -> list[object]:
    assert isinstance(one, io.TextIOWrapper)
    kind = one.encoding, one.errors, one.line_buffering, one.write_through
    return [*kind, type(one.buffer).__name__, one.seekable(), one.isatty()]


def _files() -> list[int]:
    listed = [int(name) for name in os.listdir("/proc/self/fd")]  # and one that listed them
    return [number for number in listed if os.path.exists(f"/proc/self/fd/{number}")]


def drawn() -> list[str]:
    """What no two processes draw alike."""
    return [
        str(new_id())[9:],
        str(uuid.uuid4()),
        secrets.token_hex(),
        str(random.random()),
    ]


if __name__ == "__main__":
    atexit.register(print, "at its end")
    match sys.argv[1]:
        case "portrait":
            print(json.dumps(portrait()))
        case "streams":
            sys.stdout.reconfigure(errors="backslashreplace")
            print(json.dumps(portrait()["streams"]))
        case "drawn":
            print(json.dumps(drawn()))
        case "exit":
            sys.exit(int(sys.argv[2]))
        case "raise":
            raise RuntimeError("no such colour")
        case "thread":
            threading.Timer(0.2, print, ("the thread",)).start()
        case "sleep":
            print("asleep", flush=True)
            time.sleep(600)
