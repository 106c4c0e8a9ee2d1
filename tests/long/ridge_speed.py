"""How much faster ridge regression is than a refit for every penalty and left-out donor.

    python tests/long/ridge_speed.py                    # a fold of HER2ST at UNI's width: 3,072 columns, 12,000 spots
    python tests/long/ridge_speed.py --refits 3         # more of the old way's refits timed, the rest is reckoned

Times are of the processor, on one thread. Refits of one size take the same time, so that some stand for all.
"""

import argparse
import json
import sys
import time

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from genedml.metrics import pcc
from genedml.ridge import ALPHAS, fit_ridge


def sections(spots: int, width: int, genes: int, donors: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """One of every donor, its labels linear in x but for noise."""
    random = np.random.default_rng(0)
    plane, made = random.normal(size=(width, genes)), []
    for _ in range(donors):
        x = random.normal(size=(spots // donors, width))
        y = x @ plane + 3 * width**0.5 * random.normal(size=(len(x), genes))
        made.append((x.astype(np.float32), y.astype(np.float32)))
    return made


def compare(spots: int, width: int, genes: int, donors: int, refits: int) -> dict[str, float]:
    """Processor seconds of both ways, and their ratio."""
    parts = sections(spots, width, genes, donors)
    began_s = time.process_time()
    model = fit_ridge(parts, [str(number) for number in range(donors)])
    new_s = time.process_time() - began_s
    left_out, *others = parts
    began_s = time.process_time()
    for alpha in ALPHAS[:refits]:
        x, y = (np.concatenate(tables) for tables in zip(*others, strict=True))
        refit = make_pipeline(StandardScaler(), Ridge(alpha)).fit(x, y)
        pcc(left_out[1], refit.predict(left_out[0]))
    refit_s = (time.process_time() - began_s) / refits
    every = donors * len(ALPHAS) + 1
    return {
        "spots": spots,
        "width": width,
        "penalty": model.alpha or 0.0,
        "new_s": round(new_s, 3),
        "refit_s": round(refit_s, 3),
        "refits": every,
        "old_s": round(every * refit_s, 3),
        "times_as_fast": round(every * refit_s / new_s, 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("spots", 12_000), ("width", 3_072), ("genes", 250), ("donors", 7), ("refits", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    with threadpool_limits(1):
        sys.stdout.write(json.dumps(compare(**vars(parser.parse_args()))) + "\n")
