"""Scores of an ablation, as a table on the terminal."""

from genedml_cli import console
from genedml_cli.commands.tables.scores import mean_sd, number
from genedml_cli.evaluation.scores import METRICS
from genedml_cli.runs.ablation import Ablation


def show_ablation(ablation: Ablation) -> None:
    """A row a setting, the paper's means below it, the references last, then what must be said."""
    metrics = [key for key in METRICS if key != "pcc_h_held_out"]
    rows = []
    for summary in (ablation.summary(), ablation.reference_summary()):
        for name, row in summary.iterrows():
            rows.append([str(name), *(mean_sd(row[(key, "mean")], row[(key, "std")]) for key in metrics)])
            if name in ablation.published.index:
                paper = ablation.published.loc[name]
                rows.append(["  paper", *(number(paper.get(key, float("nan"))) for key in metrics)])
    title = f"{ablation.title}; mean ±sd over {ablation.over}"
    console.table(title, ["", *(METRICS[key] for key in metrics)], rows)
    for note in ablation.notes:
        console.say(str(note))
    console.say(f"The same as CSV and JSON, and as a picture: {ablation.picture.with_suffix('')}.*")
