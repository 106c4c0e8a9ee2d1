"""The genes of a data set, of a model, or derived from counts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import anndata

from genedml.errors import GeneDMLError, reading
from genedml_cli import console
from genedml_cli.datasets.datasets import DATASETS, find_dataset, locate_counts, published_panel
from genedml_cli.datasets.folds import Fold
from genedml_cli.datasets.samples import Sample, read_sheet
from genedml_cli.expression.panels import derive_panel, gene_columns
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.text_tables import check_names, read_text


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
    from genedml_cli.outputs.run_folder import BUNDLED

    if Path(name) != BUNDLED and not Path(name).exists():
        raise GeneDMLError(
            f"{name} is no data set ({', '.join(DATASETS)}), not {BUNDLED}, and no run folder or model file is there."
        )
    return panel_of_model(Path(name))


def derive_from(files: dict[str, Path], size: int) -> tuple[str, ...]:
    """The genes in every count file with the largest sums over all, largest first.

    Raises:
        GeneDMLError: unreadable counts, or too few genes in common.
    """
    import anndata

    from genedml_cli.expression.counts import read_counts
    from genedml_cli.expression.panels import derive_panel

    with console.progress("Counts", len(files)) as advance:

        def read() -> Iterator[anndata.AnnData]:
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
    from genedml_cli.outputs.run_folder import model_files

    panels = {file: load_card(file).genes for file in model_files(model)}
    if len(set(panels.values())) > 1:
        raise GeneDMLError(
            f"The folds of {model} have panels of their own, derived from their training sections. Name one: "
            f"{', '.join(str(file) for file in panels)}."
        )
    return next(iter(panels.values()))


def check_panel(panel: str) -> None:
    if panel not in ("training", "all") and not Path(panel).is_file():
        published_panel(panel)


def check_panels(panels: Mapping[str, Sequence[str]], counts: Mapping[str, anndata.AnnData]) -> None:
    for genes in {tuple(genes) for genes in panels.values()}:
        for name, section in counts.items():
            missing = [gene for gene, at in zip(genes, gene_columns(section, genes), strict=True) if at < 0]
            if missing:
                raise GeneDMLError(
                    f"{len(missing)} of the panel's {len(genes)} genes are not in the counts of {name}: "
                    f"{', '.join(missing[:3])} ...; these have {', '.join(section.var_names[:3])} ... Name genes as "
                    "the counts do (symbols or Ensembl ids), and leave out those that a section lacks."
                )


def load_panel(panel: str, fold: Fold, counts: Mapping[str, anndata.AnnData], size: int) -> tuple[str, ...]:
    """The genes of a fold, as ``panel`` of :func:`train` says.

    Raises:
        GeneDMLError: an unknown panel, an empty file, or too few genes in common.
    """
    if panel in ("training", "all"):
        sections = (*fold.train, *fold.validation) if panel == "training" else tuple(counts)
        names = [section.name if isinstance(section, Sample) else section for section in sections]
        return derive_panel([counts[name] for name in names], size)
    if Path(panel).is_file():
        with reading(f"The panel {panel}", "Give a text file with one gene a line."):
            genes = tuple(dict.fromkeys(read_text(Path(panel)).split()))
        check_names(genes, "gene", Path(panel))
        if not genes:
            raise GeneDMLError(f"The panel {panel} is empty. Give one gene a line.")
        return genes
    return published_panel(panel)
