"""The figures the paper printed, to stand beside measured ones: its tables 1-15."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pandas as pd

from genedml.config import TARGETS, LabelsConfig, target_name
from genedml.networks.registry import NETWORKS
from genedml_cli.datasets.datasets import published_panel
from genedml_cli.notes import Note

METRIC_NAMES = {"MSE": "mse", "MAE": "mae", "PCC_A": "pcc_a", "PCC_H": "pcc_h"}
CROSS_VALIDATION = (1, 7)
"""Table 7 holds the MAE of the rows of table 1."""

PAPER = "(paper)"
"""By which rows of the paper, and notes on them, are told apart."""


@dataclass(frozen=True)
class PublishedRow:
    """One row of a table of the paper.

    Args:
        dataset: as the paper calls it; of table 2 a Visium section.
        method: Gene-DML or one of its baselines.
        setting: ``cross-validation``, ``external``, or the ablated setting, such as ``k=15``.
        mean: mean by metric, named as in :data:`METRIC_NAMES`.
        sd: standard deviation over folds by metric, where the paper prints one.
    """

    dataset: str
    method: str
    setting: str
    mean: Mapping[str, float]
    sd: Mapping[str, float]

    @property
    def network(self) -> str:
        """The name of its method in the registry."""
        return next(name for name, info in NETWORKS.items() if info.title == self.method)

    @property
    def label(self) -> str:
        """Its name in a table that measured rows stand in as well."""
        return f"{self.method} {PAPER}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, each metric with mean and, where printed, sd."""
        metrics = {key: {"mean": mean, "sd": self.sd.get(key)} for key, mean in self.mean.items()}
        return {"dataset": self.dataset, "method": self.method, "setting": self.setting, **metrics}


def published_rows(tables: Collection[int], dataset: str | None = None) -> list[PublishedRow]:
    """The rows of some tables of the paper, in its order; of one data set, if named.

    A row that the paper spreads over two tables (MAE stands in table 7, the rest in table 1) is one row here.
    """
    with (resources.files("genedml_cli") / "facts" / "paper_tables.csv").open(encoding="utf-8") as stream:
        cells = pd.read_csv(stream)
    cells = cells[cells["table"].isin(tables)]
    if dataset is not None:
        cells = cells[cells["dataset"] == dataset]
    rows = []
    for (name, method, setting), own in cells.groupby(["dataset", "method", "setting"], sort=False):
        metrics = own["metric"].map(METRIC_NAMES)
        mean = dict(zip(metrics, own["mean"], strict=True))
        sd = {metric: value for metric, value in zip(metrics, own["sd"], strict=True) if not pd.isna(value)}
        rows.append(PublishedRow(str(name), str(method), str(setting), mean, sd))
    return rows


def published_table(rows: Iterable[PublishedRow]) -> pd.DataFrame:
    """Rows in the columns of ``metrics.csv``: two each, their mean and, where the paper prints one, their sd."""
    return pd.DataFrame(
        {"source": "paper", "dataset": row.dataset, "method": row.label, "fold": kind, **values}
        for row in rows
        for kind, values in (("mean", row.mean), ("sd", row.sd))
        if values
    )


def means_of(published: Mapping[str, PublishedRow]) -> pd.DataFrame:
    """The paper's means by the rows of a table, metrics in columns."""
    return pd.DataFrame({row: of_paper.mean for row, of_paper in published.items()}, index=[*METRIC_NAMES.values()]).T


def means_of_networks(published: Sequence[PublishedRow], networks: Mapping[str, str]) -> pd.DataFrame:
    """The paper's means by the rows of a table, of those whose method the paper has.

    ``networks``: of every row, the name of its method in the registry.
    """
    of_networks = {row.network: row for row in published}
    return means_of({row: of_networks[name] for row, name in networks.items() if name in of_networks})


def rows_beside(
    dataset: str, labels: LabelsConfig, panels: Sequence[Collection[str]], tables: Collection[int] = CROSS_VALIDATION
) -> tuple[tuple[PublishedRow, ...], tuple[Note, ...]]:
    """The rows of the paper that a run may stand beside, and what must be said of them.

    None unless the run is of a published data set, its labels are the paper's and its genes the published panel:
    errors and correlations of other labels are not comparable.

    Args:
        dataset: the name of the data set that was trained on; empty if it has none. Of one that the paper does not
            know there are no rows.
        labels: the transform.
        panels: the genes of every section.
        tables: which; of table 2, the rows of every Visium section.
    """
    if not published_rows(CROSS_VALIDATION, dataset):
        return (), ()
    if target_name(labels) != "paper":
        return (), (Note(None, f"The paper's rows are left out: its labels are {TARGETS['paper'].describe()}."),)
    if any(set(panel) != set(published_panel(dataset)) for panel in panels):
        text = f"The paper's rows are left out: these genes are not the published panel of {dataset}."
        return (), (Note(None, text),)
    rows = published_rows(tables, dataset if tables == CROSS_VALIDATION else None)
    which = ("tables " if len(tables) > 1 else "table ") + " and ".join(map(str, tables))
    return tuple(rows), (Note(None, f"{PAPER}: its {which}; the epoch chosen on the test fold, level-0 views."),)
