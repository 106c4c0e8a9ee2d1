"""Make the models that come with genedml again, the scores in their cards, and the README's pictures of them.

    python examples/pretrained_model.py --root her2st
    python examples/pretrained_model.py --root her2st --target pearson

``her2st`` is the data set of Andersson et al. 2021 as its authors publish it; ``her2st_patient_c.csv`` lists what is
used of it. The run is kept in ``--run``, and what is finished of it is not trained again. The models of its folds go to
``--out``, in place of what is there. Commit both labels' folders and the two pictures together with the numbers that
this prints and README.md repeats.
"""

import argparse
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from worth import show_worth

from genedml import PRETRAINED
from genedml.checkpoint import checkpoint_bytes, load_card, load_state, network_sha256
from genedml.config import TARGETS, load_config
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.evaluation.scores import DEPTH, METRICS, PLACE, RIDGE, Evaluation
from genedml_cli.files.storage import atomic_folder, write_text
from genedml_cli.outputs import reference_layers
from genedml_cli.outputs.run_folder import model_files_in, reference_file
from genedml_cli.references.linear import load_linear, save_linear
from genedml_cli.references.novelty import load_novelty, save_novelty
from genedml_cli.report.pictures import plot
from genedml_cli.runs.run import train

EXAMPLES = Path(__file__).parent
NAMES = {"paper": "pretrained", "pearson": "pretrained-pearson"}
CARD, GENES, SCORES = "README.md", "genes.csv", "scores.csv"
BEGIN, END = "<!-- Scores: written by examples/pretrained_model.py. -->\n", "<!-- End of scores. -->\n"
SHOWN = {"pcc_a": ".3f", "pcc_h": ".3f", "pcc_given_depth": ".3f", "mse": "#.3g"}
"""Scores of a card's table, and their digits."""
ROWS = {
    "Gene-DML": "Gene-DML",
    RIDGE: "ridge on the same features",
    PLACE: "place alone, without an image",
    DEPTH: "sequencing depth alone",
}
"""Methods of a run by what a card calls them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with ST-imgs, ST-cnts and ST-spotfiles")
    parser.add_argument("--target", choices=list(NAMES), default="paper")
    parser.add_argument("--run", type=Path, help="runs/pretrained or runs/pretrained-pearson if not given")
    parser.add_argument("--out", type=Path, help="the folder in the package if not given")
    words = parser.parse_args()
    name = NAMES[words.target]
    run, out = words.run or Path("runs") / name, words.out or PRETRAINED[name]
    config = replace(load_config("small"), labels=TARGETS[words.target])
    scores = train(read_sheet(EXAMPLES / "her2st_patient_c.csv", words.root), run, config, panel="HER2ST")
    package(run, scores, out, (PRETRAINED[name] / CARD).read_text(encoding="utf-8"))
    print((out / SCORES).read_text(encoding="utf-8"))
    print(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 1e6:.2f} MB")
    if words.target == "paper":
        draw(run)


def package(run: Path, scores: Evaluation, out: Path, card: str) -> None:
    """Put the models of a run's folds, their scores and their card in place of a folder, all of it or nothing."""
    values, genes = scores.values(), scores.per_gene()
    names = {"gene": "gene", "pcc": "cv_pcc", "pcc_sd": "cv_pcc_sd", "ridge_pcc": "baseline_pcc"}
    with atomic_folder(out) as folder:
        folder.mkdir()
        for model in model_files_in(run).values():
            copy(model, folder)
        genes.rename(columns=names)[[*names.values()]].round(4).to_csv(folder / GENES, index=False)
        shown = values[values["method"].isin(ROWS)][["method", "fold", *SHOWN]]
        shown.round(6).to_csv(folder / SCORES, index=False)
        write_text(folder / CARD, with_scores(card, folder))


def copy(model: Path, folder: Path) -> None:
    """Copy a model in half precision, with its novelty and, of its references, ridge: the others are for scoring a run.

    Predictions of the test sections change by .0002 in the mean and .0015 at most, their correlation with those in
    single precision is above .9999996 for every gene.
    """
    card, before, copied = load_card(model), network_sha256(model), folder / model.name
    state = {name: value.half() for name, value in load_state(model).items()}
    copied.write_bytes(checkpoint_bytes(card, state))
    now = network_sha256(copied)
    save_novelty(load_novelty(reference_file(model, "novelty"), before), now, reference_file(copied, "novelty"))
    ridge = load_linear(model, card.genes, before)[reference_layers.RIDGE]
    save_linear({reference_layers.RIDGE: ridge}, card.genes, now, copied)


def with_scores(card: str, folder: Path) -> str:
    """A card with the scores that stand in a folder: means over folds, and the best and the worst gene."""
    before, rest = card.split(BEGIN)
    _, after = rest.split(END)
    means = pd.read_csv(folder / SCORES).groupby("method")[list(SHOWN)].mean()
    rows = [["", *(METRICS[key] for key in SHOWN)], ["---"] * (1 + len(SHOWN))]
    rows += [[title, *map(number, means.loc[method], SHOWN.values())] for method, title in ROWS.items()]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    pcc = pd.read_csv(folder / GENES, index_col="gene")["cv_pcc"]
    best, worst = (f"{number(pcc[gene], '.2f')} ({gene})" for gene in (pcc.idxmax(), pcc.idxmin()))
    genes = f"`{GENES}` has every gene: `cv_pcc` from {best} to {worst}. `{SCORES}` has every fold."
    return f"{before}{BEGIN}\n{table}\n{genes}\n\n{END}{after}"


def number(value: float, form: str) -> str:
    """Without a 0 before the point; a line for what is not defined."""
    return "-" if np.isnan(value) else re.sub(r"^(-?)0\.", r"\1.", f"{value:{form}}")


def draw(run: Path) -> None:
    """The README's pictures: two genes on section C6 by the fold that had not seen it, and what marks are worth."""
    show_worth(run, EXAMPLES / "worth.png")
    picture, _ = plot([run], ["TFF3", "S100A6"], EXAMPLES / "predicted.png", sections=["C6"], spot_size=1.4)
    with Image.open(picture) as image:
        colours = image.convert("RGB")
    few = colours.quantize(256, Image.Quantize.MAXCOVERAGE)
    colours.quantize(palette=few).save(picture, optimize=True)  # dithered, which it is with a palette alone


if __name__ == "__main__":
    main()
