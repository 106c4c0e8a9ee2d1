"""Make the model that comes with genedml again.

    python examples/pretrained_model.py --root her2st

``her2st`` is the data set of Andersson et al. 2021 as its authors publish it; ``her2st_patient_c.csv`` lists what is
used of it. The run is kept in ``--run``; its models and the references beside them go to ``--out``.
"""

import argparse
import shutil
from pathlib import Path

import pandas as pd

from genedml import PRETRAINED
from genedml.config import load_config
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.runs.run import train

SHEET = Path(__file__).parent / "her2st_patient_c.csv"
KEPT = ("fold-*.safetensors", "ridge-*.safetensors", "novelty-*.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with ST-imgs, ST-cnts and ST-spotfiles")
    parser.add_argument("--run", type=Path, default=Path("runs/pretrained"))
    parser.add_argument("--out", type=Path, default=PRETRAINED)
    words = parser.parse_args()
    found = train(read_sheet(SHEET, words.root), words.run, load_config("small"), panel="HER2ST")
    words.out.mkdir(parents=True, exist_ok=True)
    for pattern in KEPT:
        for file in sorted(words.run.glob(pattern)):
            shutil.copyfile(file, words.out / file.name)
    scores(found.per_gene()).to_csv(words.out / "genes.csv", index=False)
    size = sum(file.stat().st_size for file in words.out.iterdir())
    print(f"{words.out}: {size / 1e6:.2f} MB")


def scores(per_gene: pd.DataFrame) -> pd.DataFrame:
    """What each gene was worth, under the names it has in a prediction."""
    names = {"pcc": "cv_pcc", "pcc_sd": "cv_pcc_sd", "ridge_pcc": "baseline_pcc"}
    return per_gene.rename(columns=names)[["gene", *names.values()]].round(4)


if __name__ == "__main__":
    main()
