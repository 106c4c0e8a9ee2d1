"""Work that takes a minute in two processes; each leaves its number in the folder given. For a test to kill."""

import os
import sys
import time
from pathlib import Path

from genedml_cli.machine.executors import Place, Processes


def folder_of(place: Place) -> Path:
    return Path(sys.argv[1])


def linger(folder: Path, job: str) -> str:
    (folder / f"{job}.pid").write_text(str(os.getpid()))
    time.sleep(60)
    return job


if __name__ == "__main__":
    from lingering import folder_of, linger  # processes do not know the script that began them

    list(Processes(2, ["cpu"]).run(folder_of, linger, ["a", "b"]))
