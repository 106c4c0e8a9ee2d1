"""Is this machine fit to run genedml? A table of small checks; none of them asks the network."""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from genedml.errors import GeneDMLError
from genedml_cli import __version__, console
from genedml_cli.files.storage import free_bytes
from genedml_cli.text import gigabytes

LEAST_MEMORY = 4_000_000_000  # a section of 500 spots takes 3.5 GB at its peak with two threads
LEAST_DISK = 5_000_000_000
DRIVER_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
TILED_PX, TILE_PX = 512, 256


class State(StrEnum):
    """``broken`` is what nothing works without; ``note`` is what some things work without."""

    ok = "ok"
    note = "note"
    broken = "BROKEN"


@dataclass(frozen=True)
class Finding:
    """What a check found, and the command or step that fixes it, where there is something to fix."""

    what: str
    state: State
    found: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """As plain values."""
        return {**asdict(self), "state": self.state.value}


def examine() -> list[Finding]:
    """Every check of :data:`CHECKS`; one that itself breaks is a finding like others."""
    findings: list[Finding] = []
    for what, check in CHECKS.items():
        try:
            findings += check()
        except Exception as error:  # whatever a half-installed library raises is what we are here to tell
            fix = "install genedml anew into a fresh environment"
            findings.append(Finding(what, State.broken, f"{type(error).__name__}: {error}", fix))
    return findings


def show(findings: Sequence[Finding]) -> None:
    """One row a finding, and under the table how to fix what is not ok."""
    console.table("", ["what", "state", "found"], [[row.what, row.state, row.found] for row in findings])
    for finding in findings:
        if finding.fix:
            console.say(f"{finding.what}: {finding.fix}")


def refuse_broken(findings: Sequence[Finding]) -> None:
    """End with an error where something necessary is broken.

    Raises:
        GeneDMLError: naming it.
    """
    broken = [finding.what for finding in findings if finding.state is State.broken]
    if broken:
        raise GeneDMLError(f"Broken, and nothing runs without it: {', '.join(broken)}. The lines above fix it.")


def _python() -> Iterator[Finding]:
    yield Finding("genedml", State.ok, f"{__version__} in {Path(__file__).parent}")
    system = f"{platform.system()} {platform.machine()}"
    yield Finding("Python", State.ok, f"{platform.python_version()} ({sys.executable}), {system}")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires("genedml") or ()]
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = [f"{one} (here: {here})" for one in needed if not one.specifier.contains(here := _version(one.name), True)]
    if wrong:
        yield Finding("packages", State.broken, ", ".join(wrong), "pip install --upgrade genedml")
    else:
        yield Finding("packages", State.ok, f"all {len(needed)} are here, in versions that fit")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "0"


def _torch() -> Iterator[Finding]:
    import torch

    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    yield Finding("torch", State.ok, f"{torch.__version__}, built {built}")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            yield _gpu(number)
    elif torch.backends.mps.is_available():
        yield Finding("GPU", State.ok, "Apple's (MPS)")
    else:
        yield _no_gpu()


def _gpu(number: int) -> Finding:
    import torch

    name, what = torch.cuda.get_device_name(number), f"GPU {number}"
    try:
        free, total = torch.cuda.mem_get_info(number)
        torch.ones(3, device=f"cuda:{number}").sum().item()
    except RuntimeError as error:
        fix = "install the torch build that fits its driver: https://pytorch.org/get-started; or give --device cpu"
        return Finding(what, State.note, f"{name} does not work: {str(error).splitlines()[0]}", fix)
    return Finding(what, State.ok, f"{name}, {gigabytes(free)} of {gigabytes(total)} free")


def _no_gpu() -> Finding:
    cards = _drivers()
    if cards:
        fix = "install torch built for CUDA: https://pytorch.org/get-started"
        return Finding("GPU", State.note, f"{cards[0]} is here, but this torch does not see it: runs on the CPU", fix)
    return Finding("GPU", State.ok, "none: runs on the CPU, fit for stain-texture and slow for learned encoders")


def _drivers() -> list[str]:
    """``name, driver version`` of every NVIDIA card, as its driver says; torch may be built without it."""
    try:
        done = subprocess.run(DRIVER_QUERY, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _openslide() -> Iterator[Finding]:
    import numpy as np
    import openslide
    import tifffile

    from genedml_cli.slides.slide import open_slide

    pixels = np.full((TILED_PX, TILED_PX, 3), (200, 80, 160), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        tiled = Path(folder, "tiled.tif")
        tifffile.imwrite(tiled, pixels, photometric="rgb", tile=(TILE_PX, TILE_PX))
        with open_slide(tiled) as slide:
            corner = np.asarray(slide.source.read(0, TILED_PX - 8, TILED_PX - 8, 8, 8), dtype=int)
    if np.abs(corner - pixels[:8, :8]).max() > 4:
        raise ValueError("a tiled TIFF gives other colours")
    yield Finding("OpenSlide", State.ok, f"{openslide.__library_version__}, opened a tiled TIFF")


def _encoders() -> Iterator[Finding]:
    from genedml.encoders.table import ENCODERS
    from genedml.encoders.weights import find_weights

    missing = []
    for info in ENCODERS.values():
        what, file = f"encoder {info.name}", find_weights(info)
        if info.hub is None:
            yield Finding(what, State.ok, "needs no weights")
        elif file is not None:
            yield Finding(what, State.ok, f"weights found, {gigabytes(file.stat().st_size)}")
        else:
            missing.append(info.name)
    if missing:
        fix = "fetched when first used, or given with --weights FILE. Pages and licences: genedml encoders --json"
        yield Finding("encoders", State.note, f"weights not here: {', '.join(missing)}", fix)


def _hub() -> Iterator[Finding]:
    from huggingface_hub import get_token

    if get_token() is None:
        fix = "hf auth login (or set HF_TOKEN); needed for HEST-1k and weights that ask for it"
        yield Finding("hub login", State.note, "no token here", fix)
    else:
        yield Finding("hub login", State.ok, "there is a token; whether the hub knows it was not asked")


def _memory() -> Iterator[Finding]:
    import torch

    from genedml_cli.machine.memory import free_on_host

    free = free_on_host()
    found = f"{gigabytes(free)} free; {os.cpu_count()} processors, {torch.get_num_threads()} threads of torch"
    if free < LEAST_MEMORY:
        fix = f"close other programs: a section of some hundred spots takes about {gigabytes(LEAST_MEMORY)}"
        yield Finding("memory", State.note, found, fix)
    else:
        yield Finding("memory", State.ok, found)


def _disks() -> Iterator[Finding]:
    from huggingface_hub import constants

    fixes = {
        "this folder": (Path.cwd(), "write elsewhere: --out, and --features for training"),
        "hub's cache": (Path(constants.HF_HUB_CACHE), "no weights can be fetched: set HF_HOME to a folder of yours"),
        "temporary": (Path(tempfile.gettempdir()), "set TMPDIR to a folder that you may write to"),
    }
    for what, (folder, fix) in fixes.items():
        free = free_bytes(folder)
        found = f"{folder}: {gigabytes(free)} free"
        if not os.access(next(path for path in (folder, *folder.absolute().parents) if path.exists()), os.W_OK):
            yield Finding(what, State.note, f"{found}, not writable", fix)
        elif free < LEAST_DISK:
            yield Finding(what, State.note, found, "make room: weights take gigabytes, and so do features")
        else:
            yield Finding(what, State.ok, found)


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Python": _python,
    "packages": _packages,
    "torch": _torch,
    "OpenSlide": _openslide,
    "encoders": _encoders,
    "hub": _hub,
    "memory": _memory,
    "disk": _disks,
}
