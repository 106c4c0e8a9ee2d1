"""Work that takes a minute in two processes; each leaves its number in the folder given. For a test to kill."""

import os
import sys
import time
from pathlib import Path

from genedml_cli import app
from genedml_cli.machine import stopping
from genedml_cli.machine.compute import Compute
from genedml_cli.machine.crew import Place
from genedml_cli.machine.executors import executor


def place_of(place: Place) -> Place:
    return place


def linger(place: Place, file: Path) -> Path:
    file.write_text(str(os.getpid()))
    time.sleep(60)
    return file


def command() -> None:
    from lingering import linger, place_of  # processes do not know the script that began them

    folder, on = Path(sys.argv[1]), sys.argv[2]
    with stopping.on_stop("All is kept."):
        list(executor(on, Compute("cpu")).run(place_of, linger, [folder / f"{job}.pid" for job in "ab"]))


if __name__ == "__main__":
    app.app = command
    app.main()
