"""The counts of the sections of a run."""

from contextlib import nullcontext
from pathlib import Path

import anndata

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.datasets.samples import Sample
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.gene_map import with_gene_map
from genedml_cli.expression.joins import TOLD_APART
from genedml_cli.files.storage import sha256_of
from genedml_cli.runs.fold_plan import SectionPlan
from genedml_cli.runs.record import exchanged


class CountTables:
    """Counts that are read once in a process, and not sent to another: there they are read again, without a word.

    Args:
        gene_map: of genes that were renamed, see :mod:`genedml_cli.expression.gene_map`.
        again: whether they were read before.
    """

    def __init__(self, gene_map: Path | None = None, again: bool = False) -> None:
        self._tables: dict[str, anndata.AnnData] = {}
        self._gene_map = gene_map
        self._again = again

    def __reduce__(self) -> tuple[type["CountTables"], tuple[Path | None, bool]]:
        return CountTables, (self._gene_map, True)

    def read(self, sample: Sample) -> anndata.AnnData:
        """The counts of a section.

        Raises:
            GeneDMLError: as :func:`genedml_cli.expression.counts.read_counts`.
        """
        if sample.name not in self._tables:
            try:
                with console.unheard() if self._again else nullcontext():
                    self._tables[sample.name] = with_gene_map(read_counts(sample.counts), self._gene_map)
            except GeneDMLError as error:
                error.add_note(f"This was section {sample.name}.")
                raise
        return self._tables[sample.name]

    def read_planned(self, sample: Sample, plan: SectionPlan) -> anndata.AnnData:
        """The counts of a section as they were when its fold was planned.

        Raises:
            GeneDMLError: the file was exchanged since.
        """
        if sample.name not in self._tables and sha256_of(sample.counts) != plan.counts_sha256:
            raise exchanged(sample.counts)
        counts = self.read(sample)
        if plan.told_apart:
            counts.uns[TOLD_APART] = True
        return counts
