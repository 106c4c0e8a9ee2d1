"""One HTML page of a cohort: a row a slide, with a small map of one gene on one scale. Letters: S spots."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from genedml_cli.figures.maps import COLOURS, PERCENTILES, SectionPicture, show_tissue, spot_shapes
from genedml_cli.files.provenance import maker, now
from genedml_cli.files.storage import write_text
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.report.pictures import section_picture
from genedml_cli.report.template import template

MAP_PX = 200
QUALITY = 80


@dataclass(frozen=True)
class SlideRow:
    """One slide of the page; without a file where it failed.

    Args:
        outcome: what became of it.
        file: its result, read again when its map is drawn, so that one section at a time is in memory.
        values: of the gene that is shown.
        novelty: the median over its spots, if that is known.
    """

    outcome: Outcome
    file: Path | None = None
    values: Float[np.ndarray, " S"] | None = None
    novelty: float | None = None


def slide_row(outcome: Outcome, file: Path, data: anndata.AnnData, gene: str) -> SlideRow:
    """The row of a slide that was predicted."""
    values = np.asarray(data[:, gene].X, dtype=np.float64).ravel()
    return SlideRow(outcome, file, values, float(data.obs["novelty"].median()) if "novelty" in data.obs else None)


def write_cohort_page(path: Path, rows: Sequence[SlideRow], gene: str) -> None:
    """Write the page, which loads nothing from anywhere and links to the results beside it.

    Raises:
        GeneDMLError: it cannot be written.
    """
    known = [row.values for row in rows if row.values is not None]
    low, high = np.percentile(np.concatenate(known), PERCENTILES) if known else (0.0, 0.0)
    style = (resources.files("genedml_cli.report") / "page.css").read_text(encoding="utf-8")
    html = template("cohort.html").render(
        rows=[_cells(row, low, high) for row in rows],
        failed=sum(row.outcome.state == FAILED for row in rows),
        gene=gene,
        scale=f"{low:.2f} to {high:.2f}",
        style=Markup(style),
        maker=maker() | {"time": now()},
    )
    write_text(path, html.encode("utf-8", "replace").decode("utf-8"))


def _cells(row: SlideRow, low: float, high: float) -> dict[str, object]:
    one = row.outcome
    return {
        "name": one.name,
        "link": "" if one.state == FAILED else quote(f"{one.name}.h5ad"),
        "slide": one.slide.name,
        "spots": one.spots,
        "genes": one.genes,
        "novelty": "-" if row.novelty is None else f"{row.novelty:.2f}",
        "marks": list(dict.fromkeys((note.mark, str(note)) for note in one.marks)),
        "problem": f"{FAILED}: {one.problem}" if one.state == FAILED else "",
        "map": "" if row.file is None or row.values is None else _map(_section(row.file), row.values, low, high),
    }


def _section(file: Path) -> SectionPicture:
    """The section of a result with tissue of about the map's pixels."""
    section = section_picture(file.stem, read_prediction(file), None, {})
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
