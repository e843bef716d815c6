"""What processes use, by proc(5)."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """The processor time that a process and its descendants have used."""
    ticks = 0
    for stat in _family(pid, "stat"):
        fields = _after_name(stat)
        ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return ticks / TICKS


def resident(pid: int) -> float:
    """The memory that a process and its descendants have, in bytes; what they share counts once."""
    total = 0
    for text in _family(pid, "smaps_rollup"):
        line = next(line for line in text.splitlines() if line.startswith("Pss:"))
        total += int(line.split()[1]) * 1024
    return total


def children(named: Mapping[str, str]) -> dict[str, int]:
    """Our own child processes whose command line holds a word.

    Args:
        named: by the name to give it, the word.
    """
    found: dict[str, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(_after_name(stat.read_text())[1]) != os.getpid():
                continue
            command = stat.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        found |= {name: int(stat.parent.name) for name, word in named.items() if word in command}
    return found


def _family(pid: int, file: str) -> Iterator[str]:
    """A file of a process and of each of its descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(_after_name((folder / "stat").read_text())[1])
        except OSError:
            continue  # it has just ended
        children[parent].append(int(folder.name))
    left = [pid]
    while left:
        one = left.pop()
        left += children[one]
        try:
            yield Path(f"/proc/{one}/{file}").read_text()
        except OSError:
            continue


def _after_name(stat: str) -> list[str]:
    # The name, in parentheses, may hold spaces; what follows it does not.
    return stat.rsplit(")", 1)[1].split()
