"""Scores on sections of other donors, as tables on the terminal."""

from genedml_cli import console
from genedml_cli.commands.tables.comparison import SHOWN, comparison_rows, show_differences
from genedml_cli.commands.tables.scores import number, published_rows, show_in_full, summary_rows
from genedml_cli.evaluation.external import External
from genedml_cli.evaluation.external_comparison import ExternalComparison
from genedml_cli.evaluation.points import lines_of
from genedml_cli.evaluation.scores import METRICS, NARROW


def show_external(external: External, full: bool = False) -> None:
    """The paper's sections, then every section with its methods as mean and sd over models, then what must be said."""
    rows: list[list[str]] = []
    for name in dict.fromkeys(row.dataset for row in external.published):
        rows += [[f"{name} (paper)"], *published_rows([r for r in external.published if r.dataset == name], NARROW)]
    for one in external.sections:
        found = external.panel - len(one.unmatched)
        rows.append([f"{one.title}, {found}/{external.panel} genes"])
        rows += [[method, *cells] for method, cells in summary_rows(one.summary(), NARROW)]
        rows.append([])
    console.table(f"{external.title}; mean ±sd over models", ["", *NARROW.values()], rows)
    for one in external.sections if full else ():
        show_in_full(f"{one.title} in full; mean ±sd over models", one.summary())
    for note in external.notes:
        console.say(str(note))
    for one in external.sections:
        for note in one.notes:
            console.say(f"{one.title}: {note}")
    for line in lines_of(external.checklist):
        console.say(line)
    if external.written:
        console.say(f"The same as CSV and JSON: {external.folder}/")


def show_external_comparison(comparison: ExternalComparison) -> None:
    """The paper's sections, then every method on all sections and on each, differences, and what must be said."""
    rows: list[list[str]] = []
    for name in dict.fromkeys(row.dataset for row in comparison.published):
        rows.append([f"{name} (paper)"])
        of_section = [row for row in comparison.published if row.dataset == name]
        rows += [[row.label, *(number(row.mean.get(key, float("nan"))) for key in SHOWN)] for row in of_section]
        rows.append([])
    for name, part in comparison.parts.items():
        genes = f", {comparison.sizes[name][1]}/{comparison.panel} genes" if name in comparison.sizes else ""
        rows += [[f"{part.title}{genes}"], *comparison_rows(part), []]
    first = next(iter(comparison.parts.values()))
    console.table(f"{comparison.title}; mean ±sd over {first.over}", ["", *(METRICS[key] for key in SHOWN)], rows)
    show_differences(first)
    shared = comparison.shared_notes
    for note in shared:
        console.say(str(note))
    for name, part in comparison.sections.items():
        for note in part.notes:
            if note not in shared:
                console.say(f"{name}: {note}")
    for line in lines_of(comparison.checklist):
        console.say(line)
    console.say(f"The same as CSV and JSON, and as a picture: {comparison.picture.with_suffix('')}.*")
