"""How much memory of the host is free, and how much this process has held."""

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from genedml_cli.text import gigabytes

MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
STATUS = Path("/proc/self/status")
PEAK = "VmHWM:"


def free_on_host() -> int:
    """Bytes that can be taken without swapping, within the limits of a container and of this process."""
    return min([psutil.virtual_memory().available, *_left_in_groups(), *_left_to_process()])


def peak_on_host() -> int:
    """Most bytes that this process has held.

    On Linux ``getrusage`` counts what the program had that started this one, so that is asked on other systems alone.
    """
    lines = STATUS.read_text(encoding="utf-8").splitlines() if STATUS.is_file() else []
    for line in lines:
        if line.startswith(PEAK):
            return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def check_memory(needed: int) -> None:
    """Refuse what memory cannot hold, before it is asked for.

    Raises:
        ValueError: it cannot.
    """
    free = free_on_host()
    if needed > free:
        raise ValueError(f"it declares {gigabytes(needed)}, but {gigabytes(free)} of memory are free")


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
    """What each control group (version 2) above this process leaves it, where groups have a limit."""
    if not MEMBERSHIP.is_file():
        return
    for line in MEMBERSHIP.read_text(encoding="utf-8").splitlines():
        number, _, path = line.split(":", 2)
        if number != "0":  # of version 1
            continue
        group = GROUPS / path.lstrip("/")
        for above in (group, *group.parents):
            left = _left_in(above)
            if left is not None:
                yield left
            if above == GROUPS:
                break


def _left_in(group: Path) -> int | None:
    """Limit less what is in use; cached files that the kernel gives back are not."""
    if not (group / "memory.max").is_file():
        return None
    most = (group / "memory.max").read_text(encoding="utf-8").strip()
    if most == "max":
        return None
    stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    taken = int((group / "memory.current").read_text(encoding="utf-8")) - int(stat.get("inactive_file", 0))
    return max(0, int(most) - taken)
