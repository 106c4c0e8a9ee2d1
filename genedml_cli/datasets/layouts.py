"""Where the files of a section lie below a root: HEST-1k's layout, and that of HER2ST's authors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SectionFiles:
    """The files of a section that are there; None for those that are not.

    Args:
        slide: the image.
        patches: tiles of the spots, which stand in for the slide where a model sees local tiles alone.
        spots: the spot table.
        counts: raw counts.
    """

    slide: Path | None
    patches: Path | None
    spots: Path | None
    counts: Path | None


Layout = Callable[[str, str, Path], SectionFiles]
"""From the section's name, its HEST id and the root."""


def hest_names(hest_id: str, patches: bool = False) -> tuple[str, str]:
    """The files of a section in HEST-1k, below its root: image (the slide, or its tiles), and spots with counts."""
    return f"patches/{hest_id}.h5" if patches else f"wsis/{hest_id}.tif", f"st/{hest_id}.h5ad"


def hest_files(name: str, hest_id: str, root: Path) -> SectionFiles:
    """``wsis/ID.tif`` or ``patches/ID.h5``, and ``st/ID.h5ad``, which holds spots and counts."""
    slide, table = (_there(root / file) for file in hest_names(hest_id))
    patches, _ = (_there(root / file) for file in hest_names(hest_id, patches=True))
    return SectionFiles(slide, patches, table, table)


def her2st_authors_files(name: str, hest_id: str, root: Path) -> SectionFiles:
    """``ST-imgs/C/C2/*.jpg``, ``ST-spotfiles/C2_selection.tsv`` and ``ST-cnts/C2.tsv.gz`` for the section C2."""
    images = sorted((root / "ST-imgs" / name[0] / name).glob("*.jpg"))
    return SectionFiles(
        images[0] if images else None,
        None,
        _there(root / "ST-spotfiles" / f"{name}_selection.tsv"),
        _there(root / "ST-cnts" / f"{name}.tsv.gz"),
    )


def _there(file: Path) -> Path | None:
    return file if file.is_file() else None
