"""Pseudo-spots of a section as the ``.h5ad`` that ``--spots``, the sheet and ``--truth`` take. Letters: S spots."""

from dataclasses import dataclass, replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.files.hdf5 import plain_strings
from genedml_cli.files.provenance import maker
from genedml_cli.files.space_ranger import Pictures
from genedml_cli.files.storage import atomic_write
from genedml_cli.pseudo_spots.packing import Packing
from genedml_cli.slides.slide import open_slide
from genedml_cli.spots.section import check_full_image, check_on_slide
from genedml_cli.spots.spot_files import PSEUDO_SPOTS
from genedml_cli.spots.spots import Spots, outside_image, some_of

NAMED = 3


@dataclass(frozen=True)
class PseudoSpots:
    """What bins or transcripts of a section were summed into.

    Args:
        array_xy: column and row of every spot.
        xy_px: its centre in level-0 pixels of the H&E image.
        counts: spots x genes, in the order of ``array_xy``; names of spots are not used.
        packing: of the array.
        um_per_px: of the H&E image's level 0.
        source: what was summed, in words.
        left_out: how many spots were left out and why, in words; empty if none were.
        pictures: what Space Ranger's folder says of the image.
    """

    array_xy: Int[np.ndarray, "S 2"]
    xy_px: Float[np.ndarray, "S 2"]
    counts: anndata.AnnData
    packing: Packing
    um_per_px: float
    source: str
    left_out: str = ""
    pictures: Pictures | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """``s_100um_00012_00034``: size, row and column, as Visium HD names its bins."""
        return tuple(f"s_{self.packing.um:03g}um_{row:05}_{column:05}" for column, row in self.array_xy)

    def some(self, chosen: Bool[np.ndarray, " S"]) -> "PseudoSpots":
        """The spots that are chosen."""
        return replace(
            self, array_xy=self.array_xy[chosen], xy_px=self.xy_px[chosen], counts=self.counts[chosen].copy()
        )


def on_slide(section: PseudoSpots, slide: Path) -> PseudoSpots:
    """The spots whose centre is on the slide; those off it are counted and the first are named.

    Raises:
        GeneDMLError: as :func:`genedml_cli.slides.slide.open_slide`; none is on it; a picture of Space Ranger's.
    """
    spots = Spots(section.names, section.xy_px, section.array_xy)
    with open_slide(slide) as opened:
        check_full_image(opened, section.pictures)
        outside = outside_image(spots, opened)
        check_on_slide(spots if outside.all() else some_of(spots, ~outside), opened)
    if outside.any():
        first = ", ".join(name for name, off in zip(section.names, outside, strict=True) if off)
        first = ", ".join(first.split(", ")[:NAMED])
        console.warn(f"{outside.sum()} of {len(spots)} spots lie off {slide.name} and are left out (first: {first}).")
    return section.some(~outside)


def write_section(section: PseudoSpots, path: Path) -> None:
    """Write raw counts, Ensembl ids, level-0 pixels and array indices of pseudo-spots.

    Raises:
        GeneDMLError: no spot is left; it cannot be written.
    """
    if not len(section.xy_px):
        raise GeneDMLError(f"No spot is left of {section.source}: {section.left_out}. Is it the folder of a section?")
    data = section.counts
    data.obs = pd.DataFrame(
        {"in_tissue": 1, "array_row": section.array_xy[:, 1], "array_col": section.array_xy[:, 0]},
        index=pd.Index(section.names),
    )
    data.obsm["spatial"] = section.xy_px
    data.var_names_make_unique()
    data.uns[PSEUDO_SPOTS] = {
        "um": float(section.packing.um),
        "grid": section.packing.kind,
        "um_per_px": float(section.um_per_px),
        "source": section.source,
        **{key: str(value) for key, value in maker().items()},
    }
    with atomic_write(path) as temporary, plain_strings():
        data.write_h5ad(temporary, compression="gzip")
