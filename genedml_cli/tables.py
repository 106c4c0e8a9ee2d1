"""Results as tables on the terminal."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from genedml.encoders import EncoderInfo, find_weights
from genedml_cli import console
from genedml_cli.ablation import Ablation
from genedml_cli.demo import DemoResult
from genedml_cli.external import External
from genedml_cli.published import PublishedRow
from genedml_cli.scores import METRICS, Evaluation


def show_evaluation(evaluation: Evaluation, last_line: str) -> None:
    """The paper's rows, Gene-DML a fold, every method as mean and sd over folds, then what must be said."""
    values, summary = evaluation.values(), evaluation.summary()
    own = values[values["method"] == summary.index[0]]
    several = len(own) > 1
    rows = _published_rows(evaluation.published)
    rows += [
        [f"{row['method']} fold {row['fold']}", *(_number(row[key]) for key in METRICS)]
        for _, row in own.iterrows()
        if several
    ]
    rows += [[]] if several else []
    rows += [[method, *cells] for method, cells in _summary_rows(summary)]
    over = "; mean ±sd over folds" if several else ""
    console.table(evaluation.title + over, ["", *METRICS.values()], rows)
    for note in evaluation.notes:
        console.say(note)
    console.say(last_line)


def show_external(external: External) -> None:
    """The paper's sections, then every section with its methods as mean and sd over models, then what must be said."""
    rows: list[list[str]] = []
    for name in dict.fromkeys(row.dataset for row in external.published):
        rows += [_heading(f"{name} (paper)"), *_published_rows([r for r in external.published if r.dataset == name])]
    for one in external.sections:
        found = external.panel - len(one.unmatched)
        rows.append(_heading(f"{one.title}, {found}/{external.panel} genes"))
        rows += [[method, *cells] for method, cells in _summary_rows(one.summary())]
        rows.append([])
    console.table(f"{external.title}; mean ±sd over models", ["", *METRICS.values()], rows)
    for note in external.notes:
        console.say(note)
    for one in external.sections:
        for note in one.notes:
            console.say(f"{one.title}: {note}")
    console.say(f"The same as CSV and JSON: {external.folder}/")


def show_genes(evaluation: Evaluation) -> None:
    """PCC of every gene, mean over folds."""
    genes = evaluation.per_gene().drop(columns="marks")
    rows = [[str(row.iloc[0]), *(_number(value) for value in row.iloc[1:])] for _, row in genes.iterrows()]
    console.table("PCC of every gene, mean and sd over folds", list(genes.columns), rows)


def show_ablation(ablation: Ablation) -> None:
    """A row a setting, the paper's means below it, the references last, then what must be said."""
    metrics = [key for key in METRICS if key != "pcc_h_held_out"]
    rows = []
    for summary in (ablation.summary(), ablation.reference_summary()):
        for name, row in summary.iterrows():
            rows.append([str(name), *(_mean_sd(row[(key, "mean")], row[(key, "std")]) for key in metrics)])
            if name in ablation.published.index:
                paper = ablation.published.loc[name]
                rows.append(["  paper", *(_number(paper.get(key, float("nan"))) for key in metrics)])
    title = f"{ablation.title}; mean ±sd over {ablation.over}"
    console.table(title, ["", *(METRICS[key] for key in metrics)], rows)
    for note in ablation.notes:
        console.say(note)
    console.say(f"The same as CSV and JSON, and as a picture: {ablation.picture.with_suffix('')}.*")


def show_encoders(encoders: Iterable[EncoderInfo]) -> None:
    """One row an encoder."""
    rows = [
        [info.name, str(info.width), str(info.tokens), info.licence, _weights(info), info.hub or "-"]
        for info in encoders
    ]
    console.table("Image encoders", ["name", "width", "tokens", "licence", "weights", "hub"], rows)
    console.say("Any timm model that takes 224 px tiles: timm:NAME, under its own licence.")
    console.say("Weights that are not here are fetched when first used, or given with --weights FILE.")


def encoders_document(encoders: Iterable[EncoderInfo]) -> list[dict[str, Any]]:
    """What :func:`show_encoders` shows, for programs; ``file`` is where the weights are on this disk."""
    return [
        {
            "name": info.name,
            "width": info.width,
            "tokens": info.tokens,
            "licence": info.licence,
            "hub": info.hub,
            "gated": info.gated,
            "file": find_weights(info),
        }
        for info in encoders
    ]


def show_demo(result: DemoResult) -> None:
    """The scores of the held-out slide, where everything is, and what to type next."""
    show_evaluation(result.evaluation, "")
    console.say(f"Planted genes: mean PCC {result.planted_pcc:.2f}. Genes of pure noise: {result.noise_pcc:.2f}.\n")
    console.say(f"Picture     {result.picture}")
    console.say(f"Prediction  {result.prediction}   (scanpy.read_h5ad opens it)")
    console.say(f"Model       {result.folder / 'run'}\n")
    console.say(
        "Next, your own slide and spots (the demo's model knows only the demo's genes; train one on your data):"
    )
    console.say("  genedml train --samples SHEET.csv --encoder stain-texture --out runs/mine")
    console.say("  genedml predict SLIDE --spots SPOTS.csv --model runs/mine -o out.h5ad")


def _weights(info: EncoderInfo) -> str:
    if info.hub is None:
        return "none needed"
    place = "not here" if find_weights(info) is None else "found"
    return f"gated, {place}" if info.gated else place


def _heading(text: str) -> list[str]:
    return [text, *[""] * len(METRICS)]


def _summary_rows(summary: pd.DataFrame) -> list[tuple[str, list[str]]]:
    return [
        (str(method), [_mean_sd(row[(key, "mean")], row[(key, "std")]) for key in METRICS])
        for method, row in summary.iterrows()
    ]


def _published_rows(published: Sequence[PublishedRow]) -> list[list[str]]:
    """The paper's rows and a line under them; where it has no figure, a dash."""
    nan = float("nan")
    rows = [
        [row.label, *(_mean_sd(row.mean.get(key, nan), row.sd.get(key, nan)) for key in METRICS)] for row in published
    ]
    return [*rows, []] if rows else []


def _mean_sd(mean: float, sd: float) -> str:
    """``0.210 ±.030``: a narrow table breaks it at the blank."""
    return _number(mean) if pd.isna(sd) else f"{_number(mean)} ±{_number(sd).removeprefix('0')}"


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.3f}"
