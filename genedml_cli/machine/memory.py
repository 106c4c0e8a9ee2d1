"""How much memory of the host is free."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from genedml_cli.text import gigabytes

MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def free_on_host() -> int:
    """Bytes that can be taken without swapping, within the limits of a container and of this process."""
    return min([psutil.virtual_memory().available, *_left_in_groups(), *_left_to_process()])


def check_memory(needed: int) -> None:
    """Refuse what memory cannot hold, before it is asked for.

    Raises:
        ValueError: it cannot.
    """
    free = free_on_host()
    if needed > free:
        raise ValueError(f"it declares {gigabytes(needed)}, but {gigabytes(free)} of memory are free")


@contextmanager
def at_most(more_bytes: int) -> Iterator[None]:
    """Hold the process to ``more_bytes`` more than it has; beyond that, allocating fails at once.

    For libraries that allocate what a damaged file asks for. Only Linux can be held to it; elsewhere such a file costs
    time and memory until it is refused. The limit is one of the whole process, so it is not set where other threads
    are, whose memory it would refuse.
    """
    if sys.platform != "linux" or threading.active_count() > 1:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = psutil.Process().memory_info().data + more_bytes
    bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *bounds]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _left_to_process() -> Iterator[int]:
    """What ``ulimit -v`` and ``-d`` leave it, where the system knows such limits."""
    if sys.platform == "win32":
        return
    import resource

    used = psutil.Process().memory_info()
    for limit, size in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, "data", used.vms))):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield max(0, soft - size)


def _left_in_groups() -> Iterator[int]:
    """What each control group above this process leaves it, where groups have a limit (version 2, then 1)."""
    if not MEMBERSHIP.is_file():
        return
    for line in MEMBERSHIP.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = GROUPS, ("memory.max", "memory.current", "inactive_file")
        elif controllers == "memory":
            root, names = GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = root / path.lstrip("/")
        for group in (own, *own.parents):
            left = _left_in(group, *names)
            if left is not None:
                yield left
            if group == root:
                break


def _left_in(group: Path, limit: str, used: str, reclaimable: str) -> int | None:
    """Limit less what is in use; cached files that the kernel gives back are not."""
    if not (group / limit).is_file():
        return None
    most = (group / limit).read_text(encoding="utf-8").strip()
    if most == "max":
        return None
    stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    taken = int((group / used).read_text(encoding="utf-8")) - int(stat.get(reclaimable, 0))
    return max(0, int(most) - taken)
