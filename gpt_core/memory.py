"""How much memory models may take on this machine, or in the container that stands for it."""

import os
from collections.abc import Iterator
from pathlib import Path

#: Where Linux tells of processes and control groups (docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1).
_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
#: Files of a control group in either version: its limit, what it uses, and the line of what it could give back.
_V1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
_V2 = "memory.max", "memory.current", "inactive_file"


def memory_limit() -> int:
    """Bytes that models may take: half of the memory of this machine, or of the control group (a container) that the
    process is in, where that is less; 4 GiB where neither can be asked."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        physical = 8 * 2**30
    return min([physical, *(limit for limit, _ in _groups())]) // 2


def available_memory() -> int | None:
    """Bytes that a program can have now without another losing any; None where nobody says."""
    free = [max(0, limit - used) for limit, used in _groups()]
    try:
        lines = (_PROC / "meminfo").read_text("ascii").splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass  # no Linux
    return min(free, default=None)


def _groups() -> Iterator[tuple[int, int]]:
    """Limit and present use, in bytes, of each control group around this process that has a limit."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, kinds, place = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root, names = (_GROUPS / "memory", _V1) if kinds else (_GROUPS, _V2)
        own = root / place.strip("/")
        for folder in (own, *own.parents):
            found = _read_group(folder, *names)
            if found is not None:
                yield found
            if folder == root:
                break


def _read_group(folder: Path, limit: str, used: str, reclaimable: str) -> tuple[int, int] | None:
    try:
        most = int((folder / limit).read_text("ascii"))  # "max" where there is none
        now = int((folder / used).read_text("ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
        return most, now - int(stat.get(reclaimable, 0))
    except (OSError, ValueError):
        return None
