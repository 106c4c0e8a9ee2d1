"""Work that takes a minute in two processes; each leaves its number in the folder given. For a test to kill."""

import functools
import os
import sys
import time
from pathlib import Path

import torch

from genedml_cli.machine.executors import spread


def linger(job: str, device: torch.device, folder: Path) -> str:
    (folder / f"{job}.pid").write_text(str(os.getpid()))
    time.sleep(60)
    return job


if __name__ == "__main__":
    from lingering import linger as call  # processes do not know the script that began them

    list(spread(functools.partial(call, folder=Path(sys.argv[1])), ["a", "b"], [torch.device("cpu")] * 2, threads=1))
