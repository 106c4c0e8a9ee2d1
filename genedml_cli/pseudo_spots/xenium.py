"""Xenium: transcripts -> pseudo-spots. Letters: N transcripts, S spots, G genes.

Spots are laid in the micrometres of the transcripts, where distances are right, and their centres are mapped to the
H&E image then. The table is read in parts.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from genedml.errors import GeneDMLError, reading
from genedml_cli import console
from genedml_cli.files.tenx import Features, feature_table
from genedml_cli.files.text_files import read_json, read_text
from genedml_cli.pseudo_spots.packing import MOST_STEPS, Packing
from genedml_cli.pseudo_spots.section_file import PseudoSpots
from genedml_cli.slides.pyramids import UM_PER_PX_RANGE

TRANSCRIPTS, PANEL, EXPERIMENT = "transcripts.parquet", "gene_panel.json", "experiment.xenium"
ALIGNMENT = "*imagealignment.csv"
PIXEL_UM = 0.2125
"""Of the morphology image, whose pixels an alignment is in, where ``experiment.xenium`` does not say it."""
MIN_QV = 20.0
"""Phred-scaled quality from which Xenium's own cell x gene table counts a transcript."""
CONTROLS = ("NegControl", "BLANK", "Unassigned", "Deprecated", "Intergenic", "antisense")
"""How names of features that are no genes begin, where neither the panel nor the table says which they are."""
LEAST_COUNTS = 10
"""Of a spot: what has fewer lies off the tissue, where transcripts are strays."""
FARTHEST_UM = 1e6
PART, MOST_PENDING = 2**20, 2**25
FIX = "Give the folder that Xenium wrote, whole."


@dataclass(frozen=True)
class Alignment:
    """Where the transcripts lie on the H&E image.

    Args:
        to_px: [3 3] from micrometres of the transcripts to level-0 pixels of the image.
        source: what told it, in words.
    """

    to_px: Float[np.ndarray, "3 3"]
    source: str

    @property
    def um_per_px(self) -> float:
        """Of the image."""
        return float(abs(np.linalg.det(self.to_px[:2, :2])) ** -0.5)

    def map(self, xy_um: Float[np.ndarray, "S 2"]) -> Float[np.ndarray, "S 2"]:
        """Level-0 pixels."""
        return xy_um @ self.to_px[:2, :2].T + self.to_px[:2, 2]


def find_alignment(outs: Path, exported: Path | None, affine: Path | None) -> Alignment:
    """How the H&E image lies on the transcripts.

    Args:
        outs: of Xenium; its own ``*_imagealignment.csv`` is taken where there is one and nothing is given.
        exported: of Xenium Explorer: from pixels of the H&E image to pixels of the morphology image.
        affine: from micrometres of the transcripts to pixels of the H&E image.

    Raises:
        GeneDMLError: none, several, no 3 x 3 numbers, or a um/px that no microscope has.
    """
    if exported is None and affine is None:
        files = sorted((*outs.glob(ALIGNMENT), *outs.parent.glob(ALIGNMENT)))
        if len(files) != 1:
            named = ", ".join(file.name for file in files[:4])
            raise GeneDMLError(
                f"{outs} holds {len(files)} alignments of an H&E image{named and ': '}{named}. Give the one that "
                "Xenium Explorer exported with --alignment FILE, or um to pixels with --affine FILE."
            )
        exported = files[0]
    if exported is not None:
        to_morphology = _read_matrix(exported)
        pixel_um = _pixel_um(outs)
        to_px, source = np.linalg.inv(to_morphology) @ np.diag([1 / pixel_um, 1 / pixel_um, 1.0]), exported.name
    elif affine is not None:
        to_px, source = _read_matrix(affine), affine.name
    alignment = Alignment(to_px, source)
    low, high = UM_PER_PX_RANGE
    if not low <= alignment.um_per_px <= high:
        raise GeneDMLError(
            f"By {source} the H&E image has {alignment.um_per_px:.3g} um/px, which no microscope has. --alignment goes "
            "from its pixels to those of the morphology image, --affine from um to its pixels: is it the other one?"
        )
    return alignment


def sum_transcripts(outs: Path, packing: Packing, alignment: Alignment, min_qv: float = MIN_QV) -> PseudoSpots:
    """The pseudo-spots of all transcripts of genes of at least ``min_qv``; of fewer than 10 counts they are left out.

    Raises:
        GeneDMLError: files that are damaged or contradict each other.
    """
    file, panel = outs / TRANSCRIPTS, _read_panel(outs / PANEL)
    genes = {name: number for number, name in enumerate(panel)}
    with reading(f"The transcripts {file}", FIX):
        keys, counts = _count(file, packing, genes, min_qv, open_panel=not panel)
    spot_keys, spot = np.unique(keys // MOST_GENES, return_inverse=True)
    array_xy = np.column_stack([spot_keys % MOST_STEPS, spot_keys // MOST_STEPS])
    table = csr_matrix((counts, (spot.reshape(-1), keys % MOST_GENES)), (len(spot_keys), len(genes)))
    ids = list(panel.values()) if panel else list(genes)
    features = Features(ids, list(genes) if panel else None, None)
    data = feature_table(table, [str(row) for row in range(len(spot_keys))], features, file)
    xy_px = alignment.map(packing.centres_um(array_xy))
    enough = np.asarray(table.sum(axis=1)).ravel() >= LEAST_COUNTS
    few = int((~enough).sum())
    left_out = f"{console.count(few, 'spot')} of fewer than {LEAST_COUNTS} counts left out" if few else ""
    source = f"transcripts of Xenium of quality {min_qv:g} and more, mapped by {alignment.source}"
    return PseudoSpots(array_xy, xy_px, data, packing, alignment.um_per_px, source, left_out).some(enough)


MOST_GENES = 2**20


def _count(
    file: Path, packing: Packing, genes: dict[str, int], min_qv: float, open_panel: bool
) -> tuple[Int[np.ndarray, " K"], Int[np.ndarray, " K"]]:
    """Spot and gene as one key, and how many transcripts have it."""
    pending: list[tuple[np.ndarray, np.ndarray]] = []
    size = 0
    for names, gene_of, xy_um in _parts(file, min_qv):
        if open_panel:
            for name in names:
                genes.setdefault(name, len(genes))
        number = np.array([genes.get(name, -1) for name in names], dtype=np.int64)[gene_of]
        array_xy, number = packing.spots_at(xy_um[number >= 0]), number[number >= 0]
        keys = (array_xy[:, 1] * MOST_STEPS + array_xy[:, 0]) * MOST_GENES + number
        pending.append(np.unique(keys, return_counts=True))
        size += len(pending[-1][0])
        if size > MOST_PENDING:
            pending = [_merged(pending)]
            size = len(pending[0][0])
    return _merged(pending)


def _merged(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    keys, place = np.unique(np.concatenate([keys for keys, _ in parts]), return_inverse=True)
    counts = np.concatenate([counts for _, counts in parts])
    return keys, np.bincount(place.reshape(-1), counts, len(keys)).astype(np.int64)


def _parts(file: Path, min_qv: float) -> Iterator[tuple[list[str], Int[np.ndarray, " N"], Float[np.ndarray, "N 2"]]]:
    """Names of features, which one each transcript is of, and where it lies; without controls and poor quality."""
    from pyarrow.parquet import ParquetFile

    table = ParquetFile(file, read_dictionary=["feature_name"])
    wanted = ["feature_name", "x_location", "y_location", "qv"]
    lacking = [name for name in wanted if name not in table.schema_arrow.names]
    if lacking:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    says = "is_gene" in table.schema_arrow.names
    rows = table.metadata.num_rows
    if not rows:
        raise ValueError("it is empty")
    with console.progress("Parts", -(-rows // PART)) as advance:
        for batch in table.iter_batches(PART, columns=wanted + ["is_gene"] * says):
            features = batch.column("feature_name")
            names = [_text(name) for name in features.dictionary.to_pylist()]
            x, y, quality = (np.asarray(batch.column(name), dtype=np.float64) for name in wanted[1:])
            if not ((x >= 0) & (y >= 0) & (x < FARTHEST_UM) & (y < FARTHEST_UM)).all():
                raise ValueError("a transcript has no position, or one outside the slide")
            is_control = np.array([name.startswith(CONTROLS) for name in names], dtype=bool)
            of = np.asarray(features.indices, dtype=np.int64)
            taken = (quality >= min_qv) & ~is_control[of]
            if says:
                taken &= np.asarray(batch.column("is_gene"), dtype=bool)
            yield names, of[taken], np.column_stack([x, y])[taken]
            advance()


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _read_panel(file: Path) -> dict[str, str]:
    """Name and Ensembl id of every gene of the panel; nothing where there is no such file."""
    if not file.is_file():
        return {}
    panel = read_json(file)
    with reading(f"The panel {file}", FIX):
        targets: list[dict[str, Any]] = [target["type"] for target in panel["payload"]["targets"]]
        genes = [target["data"] for target in targets if target["descriptor"] == "gene"]
        named = {str(gene["name"]): str(gene.get("id") or "") for gene in genes}
        if not named:
            raise ValueError("it names no gene")
        return named


def _pixel_um(outs: Path) -> float:
    file = outs / EXPERIMENT
    if not file.is_file():
        return PIXEL_UM
    with reading(f"The experiment {file}", FIX):
        pixel_um = float(json.loads(read_text(file)).get("pixel_size", PIXEL_UM))
        if not 0.01 < pixel_um < 10:
            raise ValueError(f"its pixels are of {pixel_um:g} um")
        return pixel_um


def _read_matrix(file: Path) -> Float[np.ndarray, "3 3"]:
    """Nine numbers of a map of the plane that can be turned round, in three lines of a CSV.

    Raises:
        GeneDMLError: something else.
    """
    with reading(f"The alignment {file}", "Give three lines of three numbers, as Xenium Explorer exports them."):
        lines = [line for line in read_text(file).splitlines() if line.strip()]
        rows = [[float(cell) for cell in line.replace(";", ",").split(",")] for line in lines]
        matrix = np.array(rows, dtype=np.float64)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise ValueError("it is no table of 3 x 3 numbers")
        if not np.allclose(matrix[2], (0, 0, 1)) or not abs(np.linalg.det(matrix)) > 1e-12:
            raise ValueError("it is no map of the plane: its last line is 0, 0, 1, and it can be turned round")
        return matrix
