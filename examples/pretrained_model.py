"""Make the models that come with genedml again.

    python examples/pretrained_model.py --root her2st
    python examples/pretrained_model.py --root her2st --target pearson

``her2st`` is the data set of Andersson et al. 2021 as its authors publish it; ``her2st_patient_c.csv`` lists what is
used of it. The run is kept in ``--run``. Of the paper's label the models of all folds go to ``--out``, of Pearson
residuals, to keep the package small, one model of all sections, which carries the scores of the folds.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd

from genedml import PRETRAINED
from genedml.checkpoint import load_card, network_sha256
from genedml.config import TARGETS, load_config
from genedml_cli.datasets.samples import ALL_SECTIONS, read_sheet
from genedml_cli.outputs.reference_layers import RIDGE
from genedml_cli.outputs.run_folder import model_file, model_files_in, reference_file
from genedml_cli.references.linear import load_linear, save_linear
from genedml_cli.runs.run import train

SHEET = Path(__file__).parent / "her2st_patient_c.csv"
NAMES = {"paper": "pretrained", "pearson": "pretrained-pearson"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with ST-imgs, ST-cnts and ST-spotfiles")
    parser.add_argument("--target", choices=list(NAMES), default="paper")
    parser.add_argument("--run", type=Path, help="runs/pretrained or runs/pretrained-pearson if not given")
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    run = words.run or Path("runs") / NAMES[words.target]
    out = words.out or PRETRAINED[NAMES[words.target]]
    samples, config = read_sheet(SHEET, words.root), load_config("small")
    config = replace(config, labels=TARGETS[words.target])
    found = train(samples, run, config, panel="HER2ST")
    models = list(model_files_in(run).values())
    if words.target == "pearson":
        train(samples, run, config, panel="HER2ST", fold=ALL_SECTIONS)
        models = [model_file(run, ALL_SECTIONS)]
    out.mkdir(parents=True, exist_ok=True)
    for earlier in out.glob("*.safetensors"):
        earlier.unlink()
    for model in models:
        copy(model, out)
    scores(found.per_gene()).to_csv(out / "genes.csv", index=False)
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {size / 1e6:.2f} MB")


def copy(model: Path, out: Path) -> None:
    """Copy a model with its novelty and, of its references, ridge alone: the others are for scoring a run."""
    shutil.copyfile(model, out / model.name)
    novelty = reference_file(model, "novelty")
    shutil.copyfile(novelty, out / novelty.name)
    genes, network = load_card(model).genes, network_sha256(model)
    save_linear({RIDGE: load_linear(model, genes, network)[RIDGE]}, genes, network, out / model.name)


def scores(per_gene: pd.DataFrame) -> pd.DataFrame:
    """What each gene was worth, under the names it has in a prediction."""
    names = {"pcc": "cv_pcc", "pcc_sd": "cv_pcc_sd", "ridge_pcc": "baseline_pcc"}
    return per_gene.rename(columns=names)[["gene", *names.values()]].round(4)


if __name__ == "__main__":
    main()
