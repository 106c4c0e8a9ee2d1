"""The style of all figures."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from genedml.errors import GeneDMLError
from genedml_cli.files.storage import atomic_write

SUFFIXES = (".png", ".pdf", ".svg")


DOTS_PER_INCH = 300


STYLE: dict[Any, Any] = {"font.size": 8, "axes.linewidth": 0.5, "svg.fonttype": "none", "pdf.fonttype": 42}


def check_picture_path(path: Path) -> None:
    """Refuse a picture of a kind that cannot be written.

    Raises:
        GeneDMLError: another suffix than png, pdf or svg.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise GeneDMLError(f"{path} must end with {', '.join(SUFFIXES)}.")


def save_figure(figure: Figure, path: Path) -> None:
    check_picture_path(path)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
