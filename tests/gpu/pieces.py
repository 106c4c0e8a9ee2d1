"""Pieces of ``run.sh`` that no command has.

python tests/gpu/pieces.py weights uni FILE             # random weights of an encoder's architecture
python tests/gpu/pieces.py twice SLIDE SPOTS FOLDER     # two of a section beside each other: two.tif, two.csv
python tests/gpu/pieces.py read SLIDE                   # how reading scales over threads and processes
python tests/gpu/pieces.py again MODEL WEIGHTS FOLDER   # predictions of two.tif by one process
"""

import csv
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

UM_PER_PX, VIEWS_UM_PER_PX = 0.966, 0.5
SECONDS = 2.0


def weights(name: str, file: str) -> None:
    """Write random weights, so that loading and hashing them is timed as of real ones."""
    from safetensors.torch import save_file

    from genedml.encoders.encoder import build_backbone
    from genedml.encoders.table import ENCODERS

    save_file(build_backbone(ENCODERS[name]).state_dict(), file)


def encode(*names: str) -> None:
    """Print tiles a second with random weights, over the half precision matrix product of the same run, and the error.

    Layer scales, which start near 0, are drawn as trained ones are, so that blocks count in the error.
    """
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    from genedml.encoders.encoder import Encoder, build_backbone
    from genedml.encoders.table import ENCODERS
    from genedml_cli.benchmark.machine import matrix_flops
    from genedml_cli.machine.devices import pick_device
    from genedml_cli.machine.stopwatch import stopwatch

    device = pick_device()
    tiles = torch.randint(0, 256, (256 if device.type == "cuda" else 2, 224, 224, 3), dtype=torch.uint8, device=device)
    matrix = matrix_flops(device)
    for name in names:
        with device:
            backbone = build_backbone(ENCODERS[name])
        for key, value in backbone.named_parameters():
            if key.endswith("gamma"):
                nn.init.uniform_(value, 0.1, 0.5)
        encoder = Encoder(ENCODERS[name], backbone, True).to(device)
        with FlopCounterMode(display=False) as counter:
            expected = encoder(tiles[:2], single=True).tokens
        error = (encoder(tiles[:2]).tokens - expected).norm() / expected.norm()
        encoder(tiles)  # kernels are chosen at the first call
        with stopwatch(device) as once:
            encoder(tiles)
        rounds = max(1, int(SECONDS / once.wall_s))
        with stopwatch(device) as took:
            for _ in range(rounds):
                encoder(tiles)
        rate = rounds * len(tiles) / took.wall_s
        share = rate * counter.get_total_flops() / 2 / matrix
        print(
            f"{name:16} {rate:8.0f} tiles/s, {share:.2f} of {matrix / 1e12:.0f} TFLOP/s, error {error:.1e}", flush=True
        )


def pack(data: str, folder: str) -> None:
    """Write the Visium section as a pyramid of JPEG tiles, ``colon.tif``, and its spots, ``colon_spots.csv``."""
    import anndata
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    section = Image.open(Path(data) / "d0_naive_colon_he.jpg").convert("RGB")
    _write_pyramid(Path(folder) / "colon.tif", section, compression="jpeg", compressionargs={"level": 80})
    table = anndata.read_h5ad(Path(data) / "d0_naive_colon_visium.h5ad")
    places = zip(table.obs_names, table.obsm["spatial"].astype(float).tolist(), strict=True)
    text = "spot,x,y\n" + "".join(f"{name},{x},{y}\n" for name, (x, y) in places)
    (Path(folder) / "colon_spots.csv").write_text(text)


def _write_pyramid(path: Path, level: "Image.Image", **compression: object) -> None:
    import numpy as np
    import tifffile

    per_cm = (1e4 / UM_PER_PX, 1e4 / UM_PER_PX)
    shared = {"photometric": "rgb", "tile": (256, 256), "resolution": per_cm, "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        for number in range(6):
            file.write(np.asarray(level), subfiletype=int(number > 0), **shared, **compression)
            level = level.reduce(2)


def twice(slide: str, spots: str, folder: str) -> None:
    """5,208 spots of the Visium section, as a deflated pyramid, for whose tiles tifffile needs no codec."""
    import numpy as np
    import openslide
    from PIL import Image

    with openslide.OpenSlide(slide) as opened:
        width, height = opened.dimensions
        section = np.asarray(opened.read_region((0, 0), 0, (width, height)).convert("RGB"))
    level = Image.fromarray(np.concatenate([section, section], axis=1))
    _write_pyramid(Path(folder) / "two.tif", level, compression="zlib")
    with Path(spots).open() as table:
        rows = list(csv.DictReader(table))
    with (Path(folder) / "two.csv").open("w") as table:
        table.write("spot,x,y\n")
        places = [(float(row["x"]) + shift, row["y"]) for shift in (0, width) for row in rows]
        table.writelines(f"{number},{x},{y}\n" for number, (x, y) in enumerate(places))


def decode(slide: str, part: slice, threads: int = 1) -> float:
    """Megapixels of the views in some blocks of a slide, decoded in so many threads."""
    from genedml_cli.slides.raster import BLOCK_PX, Raster
    from genedml_cli.slides.slide import open_slide

    with open_slide(Path(slide), UM_PER_PX) as opened, ThreadPoolExecutor(threads) as pool:
        raster = Raster(opened, VIEWS_UM_PER_PX)
        blocks = raster.blocks(0, 0, *raster.size_px)[part]
        list(pool.map(raster.decode, blocks))
    return len(blocks) * BLOCK_PX**2 / 1e6


def read(slide: str) -> None:
    """Print megapixels a second."""
    for workers in (1, 2, 4, 8, 16):
        began = time.perf_counter()
        done = decode(slide, slice(100 * workers), workers)
        in_threads = done / (time.perf_counter() - began)
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(partial(decode, slide), [slice(1)] * workers))
            began = time.perf_counter()
            done = sum(pool.map(partial(decode, slide), [slice(n, 100 * workers, workers) for n in range(workers)]))
            in_processes = done / (time.perf_counter() - began)
        print(f"{workers:2} workers: {in_threads:6.0f} Mpx/s in threads, {in_processes:6.0f} in processes", flush=True)


def again(model: str, weights_file: str, folder: str) -> None:
    """Print the seconds of a first and a second prediction, and of a third with what is loaded already."""
    from genedml_cli.outputs.run_folder import model_files
    from genedml_cli.prediction.ensemble import load_models
    from genedml_cli.prediction.prediction import predict, predict_slide
    from genedml_cli.spots.placing import Placing

    slide, spots = Path(folder) / "two.tif", Path(folder) / "two.csv"
    for call in ("first", "second"):
        began = time.perf_counter()
        predict(slide, spots, model, f"{folder}/two.h5ad", um_per_px=UM_PER_PX, weights=weights_file, force=True)
        print(f"{call} prediction: {time.perf_counter() - began:.2f} s", flush=True)
    models = load_models(model_files(Path(model)), Path(weights_file))
    for call in ("first", "second"):
        began = time.perf_counter()
        predict_slide(models, slide, spots, Placing(UM_PER_PX))
        print(f"{call} with loaded models, not written: {time.perf_counter() - began:.2f} s", flush=True)


if __name__ == "__main__":
    {"pack": pack, "weights": weights, "encode": encode, "twice": twice, "read": read, "again": again}[sys.argv[1]](
        *sys.argv[2:]
    )
