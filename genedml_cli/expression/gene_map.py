"""Genes that were renamed: a table of two columns, ``alias`` and ``gene``."""

from pathlib import Path

import anndata

from genedml.errors import GeneDMLError, reading
from genedml_cli.expression.panels import GENE_MAP
from genedml_cli.files.text_files import check_names
from genedml_cli.files.text_tables import read_named_table

COLUMNS = ("alias", "gene")


def read_gene_map(path: Path) -> dict[str, str]:
    """What every alias is called now.

    Raises:
        GeneDMLError: unreadable, without the columns ``alias`` and ``gene``, empty cells, or an alias of two genes.
    """
    with reading(f"The gene map {path}", "Give a CSV with the columns alias and gene."):
        table = read_named_table(path)
        lacking = [column for column in COLUMNS if column not in table]
        if lacking:
            raise ValueError(f"it lacks the column {' and '.join(lacking)}")
    for column in COLUMNS:
        check_names(table[column], column, path)
    pairs = table[list(COLUMNS)].drop_duplicates()
    twice = pairs["alias"][pairs["alias"].duplicated()]
    if len(twice):
        raise GeneDMLError(f"{path} says that {twice.iloc[0]} is called two ways. Keep one.")
    return dict(zip(pairs["alias"], pairs["gene"], strict=True))


def with_gene_map(counts: anndata.AnnData, path: Path | None) -> anndata.AnnData:
    """Counts that know how genes were renamed, by which :func:`genedml_cli.expression.panels.join_genes` joins too.

    Raises:
        GeneDMLError: as :func:`read_gene_map`.
    """
    if path is not None:
        counts.uns[GENE_MAP] = read_gene_map(path)
    return counts
