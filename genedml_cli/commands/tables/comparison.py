"""A comparison, as a table on the terminal."""

import pandas as pd

from genedml_cli import console
from genedml_cli.commands.tables.scores import mean_sd, number, show_in_full
from genedml_cli.evaluation.comparison import Comparison
from genedml_cli.evaluation.points import lines_of
from genedml_cli.evaluation.scores import METRICS

SHOWN = [key for key in METRICS if key != "pcc_h_held_out"]
PARAMETERS = "parameters"
WHERE_UNLIKE = {"encoder": "encoder", "preset": "preset", "tile_um": "tile um"}
"""What of its settings a row tells where another row has other ones."""
ALWAYS = {PARAMETERS: "parameters", "seconds_a_fold": "wall s a fold"}


def show_comparison(comparison: Comparison, written: bool = True, full: bool = False) -> None:
    """A line a row, the paper's means below it, the references last, then differences and what must be said."""
    rows = comparison_rows(comparison)
    columns = ["", *(METRICS[key] for key in SHOWN), *_told(comparison).values()]
    console.table(f"{comparison.title}; mean ±sd over {comparison.over}", columns, rows)
    if full:
        summary = pd.concat([comparison.summary(), comparison.reference_summary()])
        show_in_full(f"In full; mean ±sd over {comparison.over}", summary)
    if comparison.base:
        show_differences(comparison, full)
    for note in comparison.notes:
        console.say(str(note))
    for line in lines_of(comparison.checklist):
        console.say(line)
    if written:
        console.say(f"The same as CSV and JSON, and as a picture: {comparison.picture.with_suffix('')}.*")


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    """Every row with the paper's means below it, then the references; particulars last, where they are known."""
    told, rows = _told(comparison), []
    for summary in (comparison.summary(), comparison.reference_summary()):
        for name, values in summary.iterrows():
            cells = [mean_sd(values[(key, "mean")], values[(key, "std")]) for key in SHOWN]
            rows.append([str(name), *cells, *(_particular(comparison.particulars, str(name), key) for key in told)])
            if name in comparison.published.index:
                paper = comparison.published.loc[name]
                rows.append(["  paper", *(number(paper.get(key, float("nan"))) for key in SHOWN), *[""] * len(told)])
    return rows


def show_differences(comparison: Comparison, full: bool = False) -> None:
    """Every row less the base, paired by fold and seed; nothing where there is no other."""
    differences = comparison.differences()
    if not len(differences):
        return
    title = f"Difference from {comparison.base} in the same fold with the same seed; mean ±sd over {comparison.over}"
    if full:
        show_in_full(title, differences, _signed)
        return
    rows = [
        [str(name), *(_signed(values[(key, "mean")], values[(key, "std")]) for key in SHOWN)]
        for name, values in differences.iterrows()
    ]
    console.table(title, ["", *(METRICS[key] for key in SHOWN)], rows)


def _told(comparison: Comparison) -> dict[str, str]:
    """The particulars that are shown, with their titles: what all rows have in common is not."""
    table = comparison.particulars
    if not len(table):
        return {}
    return {key: title for key, title in WHERE_UNLIKE.items() if table[key].nunique() > 1} | ALWAYS


def _particular(table: pd.DataFrame, name: str, key: str) -> str:
    value = table.loc[name, key] if name in table.index else ""
    if isinstance(value, str):
        return value or "-"
    return "-" if pd.isna(value) else f"{value:,.{0 if key == PARAMETERS else 1}f}"


def _signed(mean: float, sd: float) -> str:
    if pd.isna(mean):
        return "-"
    return f"{mean:+.3f}".replace("0.", ".", 1) + ("" if pd.isna(sd) else f" ±{number(sd).removeprefix('0')}")
