"""Parsers of this project, each with what makes a sound file for it, and how files are broken.

A parser's ``read`` returns what it understood as plain values, so that two files can be compared.
"""

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import tifffile
import tomli_w
import torch
from conftest import tiny_config, write_aperio
from PIL import Image
from safetensors.torch import save_file

from genedml.checkpoint import (
    FORMAT_VERSION,
    EncoderRecord,
    ModelCard,
    build_network,
    checkpoint_bytes,
    load_card,
    load_checkpoint,
    sealed,
)
from genedml.config import LabelsConfig, load_config
from genedml.encoders.encoder import load_weights
from genedml.networks.network import Shape
from genedml.ridge import RidgeModel
from genedml.schema import to_dict
from genedml_cli.cohort.cohort import read_cohort
from genedml_cli.datasets.samples import read_sheet
from genedml_cli.expression.counts import read_counts
from genedml_cli.expression.gene_map import read_gene_map
from genedml_cli.features.section_features import SectionFeatures, load_features, save_features
from genedml_cli.files.hdf5 import layers_of
from genedml_cli.files.space_ranger import pictures_beside
from genedml_cli.notes import Note
from genedml_cli.outputs.formats import write as write_prediction
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.outputs.prediction_record import PredictionRecord
from genedml_cli.outputs.predictions import to_anndata
from genedml_cli.pseudo_spots.packing import Packing
from genedml_cli.pseudo_spots.section_file import PseudoSpots
from genedml_cli.pseudo_spots.visium_hd import sum_bins
from genedml_cli.pseudo_spots.xenium import Alignment, find_alignment, sum_transcripts
from genedml_cli.references.linear import load_linear, save_linear
from genedml_cli.references.novelty import NoveltyModel, load_novelty, save_novelty
from genedml_cli.slides.patches import open_patches
from genedml_cli.slides.slide import open_slide
from genedml_cli.slides.tissue import read_tissue
from genedml_cli.spots.placing import Placing
from genedml_cli.spots.spot_files import read_spots
from genedml_cli.spots.spots import Spots
from genedml_cli.training.state import Moment, TrainingState

GENES = ("GNAS", "FASN", "ERBB2")
NAMES = ("a", "b", "c", "d")
PIECES = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b'"', b"'", b";", b"\t", b",", b",,", b"nan", b"inf", b"-1",
    b"1e308", b"9" * 30, b"0.5", b"True", b"None", b"../x", b"\x1b[2J", b"[" * 2000, b"{" * 50, b"=", b"\xe9",
    b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0" * 8, "\u202e".encode(),
)  # fmt: skip


@dataclass(frozen=True)
class Parser:
    """One reader, the name its file has, how a sound one is written, and what is read of it."""

    file: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]

    def named(self, file: Path) -> str:
        """What errors call the file."""
        return {"matrix.mtx": str(file.parent), "card.json": "card.safetensors"}.get(file.name, file.name)


def _spots(path: Path) -> Any:
    spots = read_spots(path)
    return spots.names, spots.xy_px.tolist(), None if spots.array_xy is None else spots.array_xy.tolist()


def _counts(path: Path) -> Any:
    data = read_counts(path)
    return tuple(data.obs_names), tuple(data.var_names), data.X.toarray().tolist()


def _prediction(path: Path) -> Any:
    data = read_prediction(path)
    layers = {name: np.asarray(layer).tolist() for name, layer in layers_of(data).items()}
    columns = {name: data.var[name].tolist() for name in data.var}
    return tuple(data.obs_names), tuple(data.var_names), data.X.tolist(), data.obsm["spatial"].tolist(), layers, columns


def _checkpoint(path: Path) -> Any:
    card, network = load_checkpoint(path)
    return asdict(card), {key: value.tolist() for key, value in network.state_dict().items()}


def _beside_ridge(path: Path) -> Path:
    """The model that linear references of this file stand beside."""
    return path.with_name(path.name.replace("ridge-", "fold-"))


def _ridge(path: Path) -> Any:
    ridge = load_linear(_beside_ridge(path), GENES, "0")["ridge"]
    return ridge.weight.tolist(), ridge.intercept.tolist(), ridge.inner_pcc.tolist()


def _novelty(path: Path) -> Any:
    return {name: table.tolist() for name, table in vars(load_novelty(path, "0")).items()}


def _card(path: Path) -> Any:
    """Of any text under a right hash, as a stranger would write it."""
    file = path.with_suffix(".safetensors")
    save_tensors(file, sealed("genedml", path.read_text(encoding="utf-8", errors="replace")))
    return asdict(load_card(file))


def _features(path: Path) -> Any:
    found = load_features(path)
    tables = found.local, found.tiles, found.own, found.neighbor
    return found.spots.names, found.spots.xy_px.tolist(), [table.tolist() for table in tables]


def _patches(path: Path) -> Any:
    with open_patches(path) as patches:
        return patches.names, patches.corners_xy.tolist(), int(patches.read(np.array([1, 0])).sum())


def _slide(path: Path) -> Any:
    with open_slide(path) as slide:
        return slide.size_px, slide.thumbnail(64).tolist()


def _config(path: Path) -> Any:
    return to_dict(load_config(file=path))


def _tissue_of(path: Path) -> Any:
    with open_slide(path.with_name("slide.png"), 8.0) as slide:
        return read_tissue(path, slide).mask.tolist()


def _cohort(path: Path) -> Any:
    return [asdict(slide) for slide in read_cohort(path, Placing())]


def _sheet(path: Path) -> Any:
    return [(one.name, one.patient, one.fold, one.um_per_px) for one in read_sheet(path)]


def write(path: Path, content: str | bytes) -> Path:
    """A file of any content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def small_prediction() -> anndata.AnnData:
    """A prediction of four spots and three genes, as ``predict`` makes it."""
    spots = Spots(
        NAMES, np.array([[10.0, 20], [30, 20], [10, 40], [30, 40]]), np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    )
    record = PredictionRecord(
        genedml="0",
        slide="s.svs",
        slide_sha256="0" * 64,
        encoder="tiny",
        method="gene-dml",
        label_settings=LabelsConfig(panel_size=3),
        notes=(Note(None, "a note"),),
        models=("fold-1.safetensors 0",),
        panels=(" ".join(GENES),),
    )
    values = np.arange(12.0).reshape(4, 3)
    data = to_anndata(values, GENES, spots, record, {"ridge": values})
    for column in ("training_mean", "depth_slope", "depth_intercept"):
        data.var[column] = [0.1, 0.2, 0.3]
    return data


def small_card() -> ModelCard:
    """The card of a model of three genes."""
    config = tiny_config("labels.panel_size=3", "network.shared_width=8", "network.head_widths=[8]")
    return ModelCard(
        config,
        Shape(len(GENES), 8, 5, config.views.neighbor_grid),
        GENES,
        EncoderRecord("tiny", 8, 5, "0" * 64),
        "1",
        (0.1, 0.2, 0.3),
        ((0.0, 0.0, 0.0), (0.1, 0.2, 0.3)),
        {"A1": "1" * 64},
        ("A",),
        ("A",),
        scores={"held_out_pcc": []},
    )


def _write_sheet(path: Path) -> None:
    for name in ("a.tif", "a.csv", "a.tsv"):
        (path.parent / name).touch()
    path.write_text(
        "sample,slide,spots,counts,patient,fold,um_per_px\nA1,a.tif,a.csv,a.tsv,A,1,0.5\nB1,a.tif,a.csv,a.tsv,B,2,\n"
    )


def _write_checkpoint(path: Path) -> None:
    torch.manual_seed(1)
    path.write_bytes(checkpoint_bytes(small_card(), build_network(small_card()).state_dict()))


def _write_features(path: Path) -> None:
    spots = Spots(NAMES, np.array([[10.0, 20], [30, 20], [10, 40], [30, 40]]))
    tables = torch.zeros(1, 4, 5, 8).half(), torch.zeros(4, 8).half(), torch.arange(4), torch.arange(4)[:, None]
    save_features(SectionFeatures(spots, *tables, EncoderRecord("tiny", 8, 5, "0"), 0.5, "0"), path, {})


def _write_ridge(path: Path) -> None:
    values = np.arange(72, dtype=np.float32).reshape(24, 3)
    save_linear({"ridge": RidgeModel(values, values[0], values[1])}, GENES, "0", _beside_ridge(path))


def _write_patches(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        images = file.create_dataset("img", data=np.zeros((2, 224, 224, 3), np.uint8), compression="gzip")
        images.attrs["downsample"] = 1.0
        file["barcode"] = np.array([[b"a"], [b"b"]])
        file["coords"] = np.array([[0, 0], [4, 0]])


def _write_novelty(path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(2, 6)
    save_novelty(NoveltyModel(values[0], values[1], values, np.ascontiguousarray(values[:, :2]), values[0]), "0", path)


def _write_state(path: Path) -> None:
    TrainingState(path, {"settings": "small"}).write(Moment({"steps": 3}, {"weights": torch.arange(4.0)}))


def _state(path: Path) -> Any:
    moment = TrainingState(path, {"settings": "small"}).read()
    assert moment is not None
    return moment.values, {name: tensor.tolist() for name, tensor in moment.tensors.items()}


def _weights(path: Path) -> Any:
    linear = torch.nn.Linear(2, 2)
    load_weights(linear, path, "linear")
    return {name: tensor.tolist() for name, tensor in linear.state_dict().items()}


def _write_regions(path: Path) -> None:
    _write_plain(path.with_name("slide.png"))
    ring = [[4, 4], [30, 4], [30, 36.5], [4, 36], [4, 4]]
    areas = [{"type": "Polygon", "coordinates": [ring, [[8, 8], [12, 8], [12, 12]]]}]
    areas += [{"type": "MultiPolygon", "coordinates": [[ring[:3]]]}]
    features = [{"type": "Feature", "geometry": area, "properties": {"name": "tissue"}} for area in areas]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def _write_mask(path: Path) -> None:
    _write_plain(path.with_name("slide.png"))
    Image.fromarray(np.tri(40, dtype=np.uint8) * 255).save(path)


def _write_tenx(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array([b"a", b"b"])
        group["data"], group["indices"], group["indptr"] = [1, 5, 2], [0, 1, 2], [0, 2, 3]
        group["shape"] = np.array([3, 2])
        for name, values in {
            "name": GENES,
            "id": GENES,
            "feature_type": ("Gene Expression",) * 3,
            "genome": "xxx",
        }.items():
            group[f"features/{name}"] = np.array([value.encode() for value in values])


def _write_mtx(path: Path) -> None:
    path.with_name("barcodes.tsv").write_text("a\nb\n")
    path.with_name("genes.tsv").write_text("".join(f"{gene}\t{gene}\n" for gene in GENES))
    path.write_text("%%MatrixMarket matrix coordinate integer general\n%\n3 2 3\n1 1 1\n2 1 5\n3 2 2\n")


def _write_plain(path: Path) -> None:
    Image.fromarray(_tissue(40)).save(path)


def _write_sub_images(path: Path) -> None:
    """An OME-TIFF of two levels."""
    settings = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
    sizes = {"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm"}
    whole = Image.fromarray(_tissue(128))
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(np.asarray(whole), subifds=1, metadata={"axes": "YXS", **sizes}, **settings)
        writer.write(np.asarray(whole.reduce(2)), subfiletype=1, **settings)


def _tissue(side: int) -> np.ndarray:
    return np.random.default_rng(1).integers(60, 250, (side, side, 3), dtype=np.uint8)


def _counts_text() -> str:
    return ",GNAS,FASN,ERBB2\na,1,0,3\nb,0,5,0\nc,12,0,1\n"


def _count_data() -> anndata.AnnData:
    from scipy.sparse import csr_matrix

    table = csr_matrix(np.array([[1, 0, 3], [0, 5, 0], [12, 0, 1], [1, 1, 1]], dtype=np.float32))
    data = anndata.AnnData(table, obs=pd.DataFrame(index=list(NAMES)), var=pd.DataFrame(index=list(GENES)))
    data.obsm["spatial"] = np.array([[10.0, 20], [30, 20], [10, 40], [30, 40]])
    return data


def _write_bins(path: Path) -> None:
    """Two spots of bins of Visium HD, in a folder that has a link to the file at ``path``."""
    import h5py

    below = path.parent / "square_002um"
    (below / "spatial").mkdir(parents=True)
    places = pd.DataFrame({"array_row": [0, 0, 1, 1] * 2, "array_col": [0, 1, 0, 1, 2, 3, 2, 3], "in_tissue": 1})
    places["pxl_row_in_fullres"], places["pxl_col_in_fullres"] = 4.0 * places["array_row"], 4.0 * places["array_col"]
    rows, columns = places["array_row"], places["array_col"]
    names = [f"s_002um_{row:05}_{column:05}-1" for row, column in zip(rows, columns, strict=True)]
    files = [below / "spatial" / "tissue_positions.parquet", below / "filtered_feature_bc_matrix.h5"]
    for number, file in enumerate(files):
        if file.name == path.name:
            file.symlink_to(path)
            files[number] = path
    places.assign(barcode=names).to_parquet(files[0])
    with h5py.File(files[1], "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(names, dtype="S")
        group["data"], group["indices"], group["indptr"] = np.arange(1, 9), np.arange(8) % 3, np.arange(9)
        group["shape"] = np.array([3, 8])
        for name, values in {"name": GENES, "id": GENES, "feature_type": ("Gene Expression",) * 3}.items():
            group[f"features/{name}"] = np.array([value.encode() for value in values])


def _write_transcripts(path: Path) -> None:
    """Forty transcripts in two spots of 4 um, and the panel of their genes."""
    number = np.arange(40)
    table = {"feature_name": np.array(GENES)[number % 3], "x_location": 4.0 * (number % 2) + 1, "y_location": 1.0}
    pd.DataFrame({**table, "qv": 30.0}).to_parquet(path)
    targets = [{"type": {"data": {"id": gene, "name": gene}, "descriptor": "gene"}} for gene in GENES]
    path.with_name("gene_panel.json").write_text(json.dumps({"payload": {"targets": targets}}))


def _bins(path: Path) -> Any:
    return _section(sum_bins(path.parent / "square_002um", SQUARES))


def _transcripts(path: Path) -> Any:
    return _section(sum_transcripts(path.parent, SQUARES, Alignment(np.eye(3), "none")))


def _section(section: PseudoSpots) -> Any:
    return section.names, tuple(section.counts.var_names), section.counts.X.toarray().tolist()


SQUARES = Packing("square", 4.0)
PARSERS: dict[str, Parser] = {
    "spots": Parser(
        "spots.csv", lambda path: write(path, "name,x,y,array_col,array_row\na,10,20.5,0,0\nb,30,20,1,0\n"), _spots
    ),
    "st-spots": Parser(
        "spots.tsv",
        lambda path: write(path, "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n3\t5\t3\t5\t30.5\t50\t1\n"),
        _spots,
    ),
    "visium-spots": Parser(
        "tissue_positions_list.csv", lambda path: write(path, "AAC-1,1,0,0,500,300\nAAG-1,0,0,2,500,400\n"), _spots
    ),
    "parquet-spots": Parser(
        "spots.parquet", lambda path: pd.DataFrame({"name": ["a"], "x": [1.0], "y": [2.0]}).to_parquet(path), _spots
    ),
    "h5ad-spots": Parser("spots.h5ad", lambda path: _count_data().write(path), _spots),
    "gene-map": Parser("map.csv", lambda path: write(path, "alias,gene\nMLL2,KMT2D\nB,C\n"), read_gene_map),
    "scale-factors": Parser(
        "scalefactors_json.json",
        lambda path: write(path, '{"bin_size_um": 8.0, "tissue_hires_scalef": 0.5}'),
        lambda path: asdict(pictures_beside(path.with_name("tissue_positions.csv"))),
    ),
    "bin-positions": Parser("tissue_positions.parquet", _write_bins, _bins),
    "bin-counts": Parser("filtered_feature_bc_matrix.h5", _write_bins, _bins),
    "transcripts": Parser("transcripts.parquet", _write_transcripts, _transcripts),
    "xenium-panel": Parser(
        "gene_panel.json", lambda path: _write_transcripts(path.with_name("transcripts.parquet")), _transcripts
    ),
    "alignment": Parser(
        "affine.csv",
        lambda path: write(path, "3.5,0.1,20\n-0.1,3.5,10\n0,0,1\n"),
        lambda path: find_alignment(path.parent, None, path).to_px.tolist(),
    ),
    "sheet": Parser("sheet.csv", _write_sheet, _sheet),
    "cohort": Parser(
        "cohort.csv", lambda path: write(path, "slide,name,um_per_px,tissue\na.svs,A,0.5,\nb.svs,,,m.png\n"), _cohort
    ),
    "regions": Parser("regions.geojson", _write_regions, _tissue_of),
    "mask": Parser("mask.png", _write_mask, _tissue_of),
    "tiff-mask": Parser("mask.tif", _write_mask, _tissue_of),
    "tenx-counts": Parser("counts.h5", _write_tenx, _counts),
    "mtx-counts": Parser("matrix.mtx", _write_mtx, lambda path: _counts(path.parent)),
    "counts": Parser("counts.csv", lambda path: write(path, _counts_text()), _counts),
    "gz-counts": Parser("counts.csv.gz", lambda path: write(path, gzip.compress(_counts_text().encode())), _counts),
    "h5ad-counts": Parser("counts.h5ad", lambda path: _count_data().write(path, compression="gzip"), _counts),
    "config": Parser("config.toml", lambda path: write(path, tomli_w.dumps(to_dict(load_config("small")))), _config),
    "checkpoint": Parser("fold-1.safetensors", _write_checkpoint, _checkpoint),
    "card": Parser(
        "card.json",
        lambda path: write(
            path, json.dumps({"format_version": FORMAT_VERSION, "weights_sha256": "0", **asdict(small_card())})
        ),
        _card,
    ),
    "novelty": Parser("novelty-1.safetensors", _write_novelty, _novelty),
    "ridge": Parser("ridge-1.safetensors", _write_ridge, _ridge),
    "state": Parser("fold-1.state", _write_state, _state),
    "weights": Parser(
        "weights.pth",
        lambda path: torch.save({"weight": torch.ones(2, 2), "bias": torch.zeros(2)}, path),
        _weights,
    ),
    "features": Parser("features.safetensors", _write_features, _features),
    "prediction": Parser("out.h5ad", lambda path: write_prediction(small_prediction(), path), _prediction),
    "patches": Parser("patches.h5", _write_patches, _patches),
    "svs": Parser("slide.svs", lambda path: write_aperio(path, _tissue(600), 0.5), _slide),
    "png": Parser("slide.png", _write_plain, _slide),
    "jpeg": Parser("slide.jpg", _write_plain, _slide),
    "tiff": Parser("slide.tif", _write_plain, _slide),
    "sub-images": Parser("slide.ome.tif", _write_sub_images, _slide),
    "tiled": Parser(
        "slide.tif",
        lambda path: tifffile.imwrite(
            path, _tissue(128), photometric="rgb", tile=(64, 64), resolution=(20_000, 20_000), resolutionunit=3
        ),
        _slide,
    ),
}


def with_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the header of a safetensors file after ``change``."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def save_tensors(path: Path, metadata: dict[str, str]) -> None:
    """A safetensors file of one tensor with any metadata."""
    save_file({"x": torch.zeros(1)}, path, metadata)


def broken(sound: bytes, chance: random.Random) -> bytes:
    """A file cut short, with bits turned over, pieces of it repeated or left out, or hostile pieces put in."""
    content = bytearray(sound)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        place, end = sorted((chance.randrange(len(content) + 1), chance.randrange(len(content) + 1)))
        kind = chance.randrange(7)
        if kind == 0:
            del content[place:]
        elif kind == 1 and content:
            for _ in range(chance.choice((1, 1, 8))):
                at = chance.randrange(len(content))
                content[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            content[place:place] = chance.choice(PIECES)
        elif kind == 3:
            piece = chance.choice(PIECES)
            content[place : place + len(piece)] = piece
        elif kind == 4:
            del content[place : min(end, place + 64)]
        elif kind == 5:
            content[place:place] = content[place : min(end, place + 256)]
        elif content:
            content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)
