"""Are genes and spots that a run calls good really better on sections it was not trained on?

    python examples/worth.py runs/mine -o worth.png

Genes are ranked by their PCC in the other folds, then scored on this fold's sections; spots are parted by novelty into
ten parts of equal size. Both curves are means over folds, with every fold behind them.
"""

import argparse
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np

from genedml.metrics import pcc
from genedml_cli.outputs.prediction_record import record_of

KEPT = np.arange(0.1, 1.01, 0.1)
PARTS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with two folds or more")
    parser.add_argument("-o", "--out", type=Path, default=Path("worth.png"))
    words = parser.parse_args()
    show_worth(words.run, words.out)


def show_worth(run: Path, out: Path) -> None:
    """Print both curves, and draw them."""
    sections = [anndata.read_h5ad(file) for file in sorted((run / "predictions").glob("*.h5ad"))]
    genes = sorted(set.intersection(*(set(section.var_names) for section in sections)))
    sections = [section[:, genes].copy() for section in sections]
    kept, error = gene_curves(sections), spot_curves(sections)
    print("genes kept, best first by the other folds:", " ".join(f"{share:6.0%}" for share in KEPT))
    print("mean PCC on the fold left out:            ", " ".join(f"{value:6.3f}" for value in kept.mean(axis=0)))
    print("spots by novelty, tenths:                 ", " ".join(f"{part + 1:6d}" for part in range(PARTS)))
    print("mean squared error:                       ", " ".join(f"{value:6.3f}" for value in error.mean(axis=0)))
    draw(kept, error, record_of(sections[0]).label, out)
    print(f"Drawn: {out}")


def gene_curves(sections: list[anndata.AnnData]) -> np.ndarray:
    """Mean PCC of the genes kept, [sections, shares kept]; a section is ranked by folds other than its own."""
    fold = [record_of(section).fold for section in sections]
    scores = np.stack([pcc(section.layers["truth"], section.X) for section in sections])
    curves = []
    for number, own in enumerate(scores):
        others = [score for score, other in zip(scores, fold, strict=True) if other != fold[number]]
        best_first = np.argsort(-np.nanmean(others, axis=0), kind="stable")
        curves.append([np.nanmean(own[best_first[: round(share * len(own))]]) for share in KEPT])
    return np.array(curves)


def spot_curves(sections: list[anndata.AnnData]) -> np.ndarray:
    """Mean squared error over the genes, [sections, parts of the spots by novelty]."""
    curves = []
    for section in sections:
        error = np.square(section.X - section.layers["truth"]).mean(axis=1)
        familiar_first = np.argsort(section.obs["novelty"].to_numpy(), kind="stable")
        curves.append([error[part].mean() for part in np.array_split(familiar_first, PARTS)])
    return np.array(curves)


def draw(kept: np.ndarray, error: np.ndarray, label: str, out: Path) -> None:
    """Both curves side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    parts = np.arange(1, PARTS + 1)
    for axes, x, curves in ((left, KEPT * 100, kept), (right, parts, error)):
        axes.plot(x, curves.T, color="0.75", linewidth=1)
        axes.plot(x, curves.mean(axis=0), color="#0072b2", linewidth=2.5, marker="o")
        axes.spines[["top", "right"]].set_visible(False)
    left.set(xlabel="genes kept, best first in the other folds (%)", ylabel="mean PCC on the fold left out")
    right.set(
        xlabel="spots by novelty, tenths: 1 is most familiar", ylabel="mean squared error of a spot", xticks=parts
    )
    figure.suptitle(f"Sections left out: {len(kept)}. Label: {label}.", fontsize=9, color="0.4")
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main()
