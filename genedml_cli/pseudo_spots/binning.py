"""The folder that an instrument wrote -> pseudo-spots in one ``.h5ad``."""

from pathlib import Path

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import refuse_overwriting_inputs
from genedml_cli.outputs.formats import check_free
from genedml_cli.pseudo_spots.packing import Packing
from genedml_cli.pseudo_spots.section_file import PseudoSpots, on_slide, write_section
from genedml_cli.pseudo_spots.visium_hd import finest_bins, sum_bins
from genedml_cli.pseudo_spots.xenium import MIN_QV, TRANSCRIPTS, find_alignment, sum_transcripts
from genedml_cli.spots.lattice import Lattice


@takes_paths
def bin_section(
    outs: Path,
    out: Path,
    um: float = 100.0,
    grid: Lattice = "hex",
    *,
    slide: Path | None = None,
    min_qv: float = MIN_QV,
    alignment: Path | None = None,
    affine: Path | None = None,
    force: bool = False,
) -> PseudoSpots:
    """Sum what an instrument measured into spots, and write them.

    Args:
        outs: of Visium HD, or one of its folders of bins, or of Xenium.
        out: an ``.h5ad``.
        um: from spot to spot; every spot reaches to the middle between it and the next.
        grid: packing of the spots.
        slide: the H&E image: spots off it are left out.
        min_qv: quality of transcripts that are counted.
        alignment: of Xenium Explorer, from pixels of the H&E image to those of the morphology image.
        affine: from micrometres of the transcripts to pixels of the H&E image.
        force: write over a file that is there.

    Raises:
        GeneDMLError: whatever the user can fix; nothing is written then.
    """
    if out.suffix != ".h5ad":
        raise GeneDMLError(f"{out} is to hold spots and counts: call it .h5ad.")
    refuse_overwriting_inputs([out], [slide, alignment, affine])
    check_free(out, force)
    section = _sum(outs, Packing(grid, um), min_qv, alignment, affine)
    if slide is not None:
        section = on_slide(section, slide)
    write_section(section, out)
    left_out = f"; {section.left_out}" if section.left_out else ""
    console.note(f"{section.source}: {section.um_per_px:.4g} um/px{left_out}.")
    return section


def _sum(outs: Path, packing: Packing, min_qv: float, alignment: Path | None, affine: Path | None) -> PseudoSpots:
    if not outs.is_dir():
        raise GeneDMLError(f"There is no folder {outs}. Give the folder outs of Visium HD or Xenium.")
    if (outs / TRANSCRIPTS).is_file():
        return sum_transcripts(outs, packing, find_alignment(outs, alignment, affine), min_qv)
    bins = finest_bins(outs)
    if bins is not None and (alignment or affine):
        raise GeneDMLError("--alignment and --affine go with Xenium: bins of Visium HD have pixels of their own.")
    if bins is not None:
        return sum_bins(bins, packing)
    raise GeneDMLError(
        f"{outs} holds neither bins of Visium HD (binned_outputs/square_002um) nor transcripts of Xenium "
        "(transcripts.parquet). Give the folder outs; Visium's spots need no binning."
    )
