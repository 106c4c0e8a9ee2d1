"""The figures the paper printed, to stand beside measured ones: its tables 1-15."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources

import pandas as pd

METRIC_NAMES = {"MSE": "mse", "MAE": "mae", "PCC_A": "pcc_a", "PCC_H": "pcc_h"}
CROSS_VALIDATION = (1, 7)
"""Table 7 holds the MAE of the rows of table 1."""


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
