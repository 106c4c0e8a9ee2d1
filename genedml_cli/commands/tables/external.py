"""Scores on sections of other donors, as a table on the terminal."""

from genedml_cli import console
from genedml_cli.commands.tables.scores import published_rows, summary_rows
from genedml_cli.evaluation.external import External
from genedml_cli.evaluation.scores import METRICS


def show_external(external: External) -> None:
    """The paper's sections, then every section with its methods as mean and sd over models, then what must be said."""
    rows: list[list[str]] = []
    for name in dict.fromkeys(row.dataset for row in external.published):
        rows += [_heading(f"{name} (paper)"), *published_rows([r for r in external.published if r.dataset == name])]
    for one in external.sections:
        found = external.panel - len(one.unmatched)
        rows.append(_heading(f"{one.title}, {found}/{external.panel} genes"))
        rows += [[method, *cells] for method, cells in summary_rows(one.summary())]
        rows.append([])
    console.table(f"{external.title}; mean ±sd over models", ["", *METRICS.values()], rows)
    for note in external.notes:
        console.say(str(note))
    for one in external.sections:
        for note in one.notes:
            console.say(f"{one.title}: {note}")
    if external.written:
        console.say(f"The same as CSV and JSON: {external.folder}/")


def _heading(text: str) -> list[str]:
    return [text, *[""] * len(METRICS)]
