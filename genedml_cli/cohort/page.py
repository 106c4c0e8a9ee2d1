"""One HTML page of a cohort: a row a slide, with a small map of one gene on one scale. Letters: S spots."""

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import anndata
import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from genedml_cli.cohort.slide import FAILED, Outcome
from genedml_cli.figures.maps import COLOURS, SectionPicture, show_tissue, spot_shapes
from genedml_cli.files.provenance import maker, now
from genedml_cli.files.storage import atomic_write
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.report.pictures import section_picture
from genedml_cli.report.template import template

MAP_PX = 200
QUALITY = 80


def write_cohort_page(path: Path, outcomes: Sequence[Outcome], gene: str, low: float, high: float) -> None:
    """Write the page, which loads nothing from anywhere and links to the results beside it.

    Args:
        path: of the page, beside the results, which are read one after the other.
        outcomes: of all slides.
        gene: whose maps are drawn.
        low, high: between which values its colours lie.

    Raises:
        GeneDMLError: a result cannot be read, or the page not written.
    """
    style = (resources.files("genedml_cli.report") / "page.css").read_text(encoding="utf-8")
    stream = template("cohort.html").stream(
        slides=len(outcomes),
        rows=(_row(outcome, path.parent, gene, low, high) for outcome in outcomes),
        failed=sum(outcome.state == FAILED for outcome in outcomes),
        gene=gene,
        scale=f"{low:.2f} to {high:.2f}",
        style=Markup(style),
        maker=maker() | {"time": now()},
    )
    with atomic_write(path) as temporary:
        stream.dump(str(temporary), encoding="utf-8", errors="replace")


def values_of(data: anndata.AnnData, gene: str) -> Float[np.ndarray, " S"]:
    """What is predicted of a gene."""
    return np.asarray(data[:, gene].X, dtype=np.float64).ravel()


def _row(outcome: Outcome, folder: Path, gene: str, low: float, high: float) -> dict[str, object]:
    row: dict[str, object] = {
        "name": outcome.name,
        "link": "",
        "slide": outcome.slide.name,
        "spots": outcome.spots,
        "genes": outcome.genes,
        "novelty": "-",
        "marks": list(dict.fromkeys((note.mark, str(note)) for note in outcome.marks)),
        "problem": f"{FAILED}: {outcome.problem}",
        "map": "",
    }
    if outcome.state == FAILED:
        return row
    data = read_prediction(folder / f"{outcome.name}.h5ad")
    picture = _map(_section(outcome.name, data), values_of(data, gene), low, high)
    novelty = f"{float(data.obs['novelty'].median()):.2f}" if "novelty" in data.obs else "-"
    return row | {"link": quote(f"{outcome.name}.h5ad"), "novelty": novelty, "problem": "", "map": picture}


def _section(name: str, data: anndata.AnnData) -> SectionPicture:
    """The section of a result with tissue of about the map's pixels."""
    section = section_picture(name, data, None, {})
    if section.tissue is None:
        return section
    step = max(1, int(min(section.tissue.shape[:2]) / (2 * MAP_PX)))
    tissue = np.ascontiguousarray(section.tissue[::step, ::step])
    return replace(section, tissue=tissue, tissue_scale=section.tissue_scale / step)


def _map(section: SectionPicture, values: Float[np.ndarray, " S"], low: float, high: float) -> str:
    left, right, top, bottom = section.window_px
    scale = MAP_PX / max(right - left, bottom - top)
    width, height = (max(1, scale * side) / 100 for side in (right - left, bottom - top))
    figure = Figure(figsize=(width, height), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(left, right), ylim=(bottom, top))
    axis.set_axis_off()
    show_tissue(axis, section, pale=True)
    dots = spot_shapes(axis, section)
    dots.set(array=values, cmap=COLOURS, clim=(low, high), linewidth=0)
    axis.add_collection(dots)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    stream = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
