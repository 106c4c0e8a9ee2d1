"""The folder ``outs`` that Space Ranger writes: its table of spots, and the pictures that it drew of its image.

Versions differ by the table's name: 1 wrote ``tissue_positions_list.csv`` without a header, 2 to 4 write
``tissue_positions.csv``, and for Visium HD ``tissue_positions.parquet`` in the folder of every size of bins.
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from genedml.errors import GeneDMLError, reading
from genedml_cli.files.text_files import read_json

BINS_FOLDER = "binned_outputs"
SPATIAL = "spatial"
POSITIONS = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
SCALE_FACTORS = "scalefactors_json.json"
HIRES = "tissue_hires_image.png"
PICTURES = (
    *(HIRES, "tissue_lowres_image.png", "cytassist_image.tiff"),
    *("aligned_tissue_image.jpg", "aligned_fiducials.jpg", "detected_tissue_image.jpg"),
)
"""What lies in ``spatial`` and is not the image whose pixels the positions are."""
VISIUM_PITCH_UM = 100.0
"""From spot to spot on every Visium slide; of Visium HD ``bin_size_um`` in the scale factors says it."""


@dataclass(frozen=True)
class Pictures:
    """What ``spatial`` says of the image that Space Ranger was given.

    Args:
        pitch_um: from spot to spot, or from bin to bin.
        full_size_px: width and height of that image, as its smaller copy and the factor tell; None without a copy.
        sizes_px: width and height of the pictures that lie there, by name.
    """

    pitch_um: float
    full_size_px: tuple[int, int] | None
    sizes_px: dict[str, tuple[int, int]]


def positions_in(folder: Path) -> Path:
    """The table of spots of ``outs``, of the folder above it, of ``spatial`` or of the folder of bins of one size.

    Raises:
        GeneDMLError: none, several, or bins of Visium HD, which are to be summed.
    """
    for place in (folder / SPATIAL, folder / "outs" / SPATIAL, folder):
        files = sorted(place.iterdir()) if place.is_dir() else []
        tables = [file for name in POSITIONS for file in files if file.name.removesuffix(".gz").endswith(name)]
        if len(tables) > 1:
            named = ", ".join(file.name for file in tables[:4])
            raise GeneDMLError(f"{place} holds {len(tables)} tables of spots. Give one of them: {named}")
        if tables:
            return tables[0]
    if any((place / BINS_FOLDER).is_dir() for place in (folder, folder / "outs")):
        raise GeneDMLError(
            f"{folder} is of Visium HD, whose bins are smaller than what the network sees of a spot. Sum them into "
            f"spots first: genedml data bin {folder} --um 100 -o section.h5ad"
        )
    raise GeneDMLError(
        f"{folder} is a folder without {SPATIAL}/{POSITIONS[1]}, so none of Space Ranger's. Give its outs, or a table "
        "of spots."
    )


def pictures_beside(table: Path) -> Pictures | None:
    """What lies beside a table of spots of Space Ranger; None beside other tables.

    Raises:
        GeneDMLError: scale factors or pictures that cannot be read.
    """
    file = table.parent / SCALE_FACTORS
    if not file.is_file() or not table.name.removesuffix(".gz").endswith(POSITIONS):
        return None
    factors = read_json(file)
    with reading(str(file), "Copy Space Ranger's folder again."):
        pitch_um, scale = (float(factors.get(name) or 0) for name in ("bin_size_um", "tissue_hires_scalef"))
    sizes_px = {}
    for picture in (table.parent / name for name in PICTURES):
        if picture.is_file():
            with reading(str(picture), "Copy Space Ranger's folder again, or remove the picture."):
                sizes_px[picture.name] = _size_of(picture)
    full = None
    if scale > 0 and HIRES in sizes_px:
        full = (round(sizes_px[HIRES][0] / scale), round(sizes_px[HIRES][1] / scale))
    return Pictures(pitch_um or VISIUM_PITCH_UM, full, sizes_px)


def _size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size
