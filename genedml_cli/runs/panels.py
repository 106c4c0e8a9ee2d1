"""The genes of a data set, of a model, or derived from counts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genedml import PRETRAINED
from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.datasets.datasets import DATASETS, find_dataset, locate_counts, published_panel
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.files.paths import takes_paths
from genedml_cli.outputs.run_folder import model_files


@takes_paths
def find_panel(
    name: str | None,
    derive: bool = False,
    root: Path | None = None,
    sheet: Path | None = None,
    allow_partial: bool = False,
    size: int = 250,
) -> tuple[str, ...]:
    """The published panel of a data set, that of a run or model file, or one derived by METHOD's rule.

    Args:
        name: a data set, a run folder or a model file; None with ``sheet``.
        derive: from the counts of the data set below ``root``.
        root: folder of the data; paths of ``sheet`` start here.
        sheet: derive from the counts of this sample sheet.
        allow_partial: derive from a data set of which counts are missing.
        size: how many genes to derive.

    Raises:
        GeneDMLError: neither or both of ``name`` and ``sheet``; counts that are missing or have too few genes in
            common; folds with panels of their own.
    """
    if (name is None) == (sheet is None):
        raise GeneDMLError("Give either a NAME (data set, run folder or model file) or --samples SHEET.csv.")
    if sheet is not None:
        files = {sample.name: sample.counts for sample in read_sheet(sheet, root)}
        return derive_from(files, size)
    if not derive:
        return _panel_as_it_is(str(name))
    known = find_dataset(str(name))
    files = locate_counts(known, root or Path(), allow_partial)
    if len(files) < len(known.sections):
        console.warn(f"From the counts of {len(files)} of the {len(known.sections)} sections of {known.name} only.")
    return derive_from(files, size)


def _panel_as_it_is(name: str) -> tuple[str, ...]:
    if name in DATASETS:
        if DATASETS[name].panel is None:
            raise GeneDMLError(f"{name} has no published panel. Derive one: genedml genes {name} --derive --root DIR")
        return published_panel(name)
    if name not in PRETRAINED and not Path(name).exists():
        raise GeneDMLError(
            f"{name} is no data set ({', '.join(DATASETS)}), not {' or '.join(PRETRAINED)}, and no run folder or "
            "model file is there."
        )
    return panel_of_model(Path(name))


def derive_from(files: dict[str, Path], size: int) -> tuple[str, ...]:
    """The genes in every count file with the largest sums over all, largest first.

    Raises:
        GeneDMLError: unreadable counts, or too few genes in common.
    """
    from genedml_cli.expression.counts import read_counts
    from genedml_cli.expression.panels import derive_panel

    with console.progress("Counts", len(files)) as advance:

        def read() -> Iterator[Any]:
            for section, file in files.items():
                yield read_counts(file)
                advance(note=section)

        return derive_panel(read(), size)


def panel_of_model(model: Path) -> tuple[str, ...]:
    """The genes that a model file, or every fold of a run folder, predicts, in order.

    Raises:
        GeneDMLError: no model, or folds with panels of their own.
    """
    from genedml.checkpoint import load_card

    panels = {file: load_card(file).genes for file in model_files(model)}
    if len(set(panels.values())) > 1:
        raise GeneDMLError(
            f"The folds of {model} have panels of their own, derived from their training sections. Name the file of "
            f"one: {', '.join(str(file) for file in panels)}."
        )
    return next(iter(panels.values()))
