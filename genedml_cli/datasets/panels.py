"""The gene panels of folds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import anndata

from genedml.errors import GeneDMLError, reading
from genedml_cli.datasets.datasets import published_panel
from genedml_cli.datasets.folds import Fold
from genedml_cli.datasets.samples import Sample
from genedml_cli.expression.panels import derive_panel, join_genes, say_join
from genedml_cli.files.text_files import check_names, read_text


def check_panel(panel: str) -> None:
    """Refuse a panel that is neither a file nor known.

    Raises:
        GeneDMLError: naming those that there are.
    """
    if panel not in ("training", "all") and not Path(panel).is_file():
        published_panel(panel)


def check_panels(panels: Mapping[str, Sequence[str]], counts: Mapping[str, anndata.AnnData]) -> None:
    """Refuse panels with genes that a section's counts lack; says what joins them, where not all are by name.

    Raises:
        GeneDMLError: naming the section and the first genes.
    """
    for genes in {tuple(genes) for genes in panels.values()}:
        for name, section in counts.items():
            join = join_genes(section, genes)
            missing = [gene for gene, at in zip(genes, join.columns, strict=True) if at < 0]
            if missing:
                raise GeneDMLError(
                    f"The counts of {name} lack {len(missing)} of the panel's {len(genes)} genes: "
                    f"{', '.join(missing[:3])} ...; these have {', '.join(section.var_names[:3])} ... Name genes as "
                    "the counts do (symbols or Ensembl ids), say what was renamed (--gene-map), and leave out those "
                    "that a section lacks."
                )
            say_join(join, f"{name}: ")


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
