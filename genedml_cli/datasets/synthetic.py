"""A small data set that looks like H&E and hides a known relation between tissue and expression.

Smooth random fields say how much of every place is tumour, lymphocytes, stroma and fat. Nuclei and fibres are painted
from these fields, and the planted genes' rates follow the same fields around each spot; the other genes are noise. So
what a model can learn is known beforehand. The same configuration gives the same pixels and counts.

Letters: S spots, M genes; h, w rows and columns of field cells, H, W of pixels; N stamps, D their side.
"""

import gzip
import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Int, UInt8
from numpy.random import Generator, default_rng
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter

from genedml_cli.files.storage import atomic_write, write_text

# Change of a planted gene's log rate where tumour, lymphocytes, stroma or fat fill the spot.
PATTERNS: dict[str, tuple[float, float, float, float]] = {
    "TUMOR": (2.5, 0.0, 0.0, 0.0),
    "LYMPH": (0.0, 3.0, 0.0, 0.0),
    "STROMA": (0.0, 0.0, 2.5, 0.0),
    "CELLULAR": (2.0, 2.0, 0.0, 0.0),
    "NOTTUMOR": (-2.5, 0.0, 0.0, 0.0),
}
PATTERN_ORDER = ("TUMOR", "LYMPH", "STROMA", "TUMOR", "LYMPH", "STROMA", "CELLULAR", "NOTTUMOR")
PLANTED_SHARE = 0.4
MEAN_LIBRARY, DEPTH_SPREAD = 3000.0, 0.2
OVERDISPERSION = 0.3  # variance of a count = mean + OVERDISPERSION * mean^2

SPOT_UM, CELL_UM, REGION_UM = 100.0, 8.0, 130.0
FIBER_UM = (0.5, 3.0)  # one step of the fibre texture, across and along
# Parts of the tissue, taken in this order where regions overlap; stroma is the rest.
AREA_SHARES = {"fat": 0.06, "lymph": 0.16, "tumor": 0.45}
PYRAMID_STEPS = (1, 4, 16)

# Optical density (base 10) of one unit of stain in red, green and blue: Ruifrok & Johnston 2001. Their eosin is
# magenta on glass; a little of their third vector makes it salmon, as it is in most laboratories.
HEMATOXYLIN_OD = np.array([0.650, 0.704, 0.286])
EOSIN_OD = np.array([0.072, 0.990, 0.105]) + 0.3 * np.array([0.268, 0.570, 0.776])
GLASS_RGB = np.array([244.0, 243.0, 244.0])
# Stains are painted in whole levels, so that colours come from one small table and slides compress well.
TOP_LEVEL = 63
HEMATOXYLIN_STEP, EOSIN_STEP = 1.05 / TOP_LEVEL, 0.48 / TOP_LEVEL


@dataclass(frozen=True)
class Look:
    """How a compartment looks: nuclei, or bubbles where they have no stain, and the matrix between them."""

    spacing_um: float  # one for each square of this side where the compartment is pure,
    jitter: float  # off its place by up to this part of it
    radii_um: tuple[float, float]  # of the ellipse, varied by ``spread``
    spread: float
    stain: float  # units of haematoxylin
    matrix: tuple[float, float, float]  # units of haematoxylin, of eosin, and how far fibres make eosin vary


LOOKS = {
    "tumor": Look(11.5, 0.4, (5.2, 3.9), 0.2, 0.58, (0.15, 0.14, 0.03)),
    "lymph": Look(6.7, 0.45, (2.9, 2.7), 0.1, 0.84, (0.16, 0.09, 0.02)),
    "stroma": Look(21.0, 0.4, (7.0, 1.9), 0.25, 0.62, (0.035, 0.16, 0.07)),
    "fat": Look(48.0, 0.14, (24.5, 22.5), 0.12, 0.0, (0.01, 0.13, 0.03)),
}
COMPARTMENTS = tuple(LOOKS)
STAMP_ANGLES, STAMP_VARIANTS = 16, 6


@dataclass(frozen=True)
class SyntheticConfig:
    """Size of the data set; the first ``PLANTED_SHARE`` of ``genes`` are planted.

    Spots lie on a square lattice, those on glass left out. By default, 224 px tiles of neighbouring spots coincide.
    """

    patients: int = 4
    sections_per_patient: int = 1
    spots_x: int = 12
    spots_y: int = 11
    genes: int = 60
    um_per_px: float = 0.5
    pitch_um: float = 112.0
    seed: int = 7


@dataclass(frozen=True)
class Tissue:
    """Fields on cells of ``cell_px`` pixels."""

    cell_px: int
    um_per_px: float
    inside: Float32[np.ndarray, "h w"]  # above zero in tissue, below on glass; about one a cell from the outline
    shares: Float32[np.ndarray, "4 h w"]  # of COMPARTMENTS, in order; they sum to one
    fibers_um: Float32[np.ndarray, "2 h w"]  # place of a cell across and along the fibres


@dataclass(frozen=True)
class Section:
    """What is true of a section: tissue, spots, the compartments' shares around each, counts; and its random seed."""

    tissue: Tissue
    names: tuple[str, ...]
    array_xy: Int[np.ndarray, "S 2"]
    xy_px: Float[np.ndarray, "S 2"]
    shares: Float[np.ndarray, "S 4"]
    counts: Int[np.ndarray, "S M"]
    seed: tuple[int, int, int]


def planted_genes(config: SyntheticConfig) -> tuple[str, ...]:
    """The genes that follow the tissue, each named by what it follows: the first columns of the counts."""
    follow = [PATTERN_ORDER[number % len(PATTERN_ORDER)] for number in range(round(PLANTED_SHARE * config.genes))]
    return tuple(f"{name}{1 + follow[:number].count(name)}" for number, name in enumerate(follow))


def gene_names(config: SyntheticConfig) -> tuple[str, ...]:
    """All genes in the order of the counts: planted ones, then noise."""
    planted = planted_genes(config)
    return (*planted, *(f"NOISE{number}" for number in range(1, config.genes - len(planted) + 1)))


def write_dataset(folder: Path, config: SyntheticConfig = SyntheticConfig()) -> Path:
    """Write slides, spots, raw counts and the sample sheet; return the sheet.

    Raises:
        GeneDMLError: the folder cannot be written, or the disk is full.
    """
    rows = []
    for patient, number in product(range(1, config.patients + 1), range(1, config.sections_per_patient + 1)):
        name = f"P{patient}" if config.sections_per_patient == 1 else f"P{patient}_{number}"
        files = {"slide": f"slides/{name}.tif", "spots": f"spots/{name}.csv", "counts": f"counts/{name}.tsv.gz"}
        section = make_section(config, patient, number)
        write_slide(folder / files["slide"], paint(section), config.um_per_px)
        places = dict(zip(("x", "y", "array_col", "array_row"), (*section.xy_px.T, *section.array_xy.T), strict=True))
        write_text(folder / files["spots"], pd.DataFrame({"name": section.names} | places).to_csv(index=False))
        counts = pd.DataFrame(section.counts, index=list(section.names), columns=list(gene_names(config)))
        with atomic_write(folder / files["counts"]) as temporary:
            temporary.write_bytes(gzip.compress(counts.to_csv(sep="\t").encode(), mtime=0))
        rows.append({"sample": name, **files, "patient": f"P{patient}"})
    write_text(folder / "samples.csv", pd.DataFrame(rows).to_csv(index=False))
    return folder / "samples.csv"


def make_section(config: SyntheticConfig, patient: int, number: int) -> Section:
    """Tissue, spots and counts of a patient's section, both numbered from 1."""
    seed = (config.seed, patient, number)
    tissue = _grow_tissue(config, default_rng([*seed, 1]))
    array_xy = np.indices((config.spots_y, config.spots_x)).reshape(2, -1)[::-1].T
    # A pitch and a half to the edge: the outermost spot's tile, and one more.
    xy_px = (array_xy + 1.5) * config.pitch_um / config.um_per_px
    column, row = (xy_px / tissue.cell_px).astype(int).T
    window = max(1, round(SPOT_UM / (tissue.cell_px * config.um_per_px)))
    present = (tissue.inside > 0).astype(np.float32)
    shares = np.stack([uniform_filter(share * present, window)[row, column] for share in tissue.shares], axis=1)
    kept = (present[row, column] > 0) & (shares.sum(axis=1) > 0.6)
    array_xy, xy_px, shares = array_xy[kept], xy_px[kept], shares[kept].astype(float)
    counts = _draw_counts(config, shares, default_rng([*seed, 2]))
    return Section(tissue, tuple(f"{x}x{y}" for x, y in array_xy), array_xy, xy_px, shares, counts, seed)


def _grow_tissue(config: SyntheticConfig, rng: Generator) -> Tissue:
    cell_px = max(1, round(CELL_UM / config.um_per_px))
    cell_um = cell_px * config.um_per_px
    width, height = (math.ceil((spots + 2) * config.pitch_um / cell_um) for spots in (config.spots_x, config.spots_y))
    y, x = np.mgrid[:height, :width]

    def smooth(size_um: float) -> Float[np.ndarray, "h w"]:
        field = gaussian_filter(rng.standard_normal((height, width)), size_um / cell_um, mode="wrap")
        return (field - field.mean()) / field.std()

    edges = 1.5 * config.pitch_um / cell_um  # glass at both
    u, v = (2 * x + 1 - width) / (width - edges), (2 * y + 1 - height) / (height - edges)
    radius = (np.abs(u) ** 2.6 + np.abs(v) ** 2.6) ** (1 / 2.6)
    inside = (0.96 - radius + 0.05 * smooth(REGION_UM) + 0.012 * smooth(20)) * min(width, height) / 2
    shares, rest = {}, np.ones((height, width))
    for name, area in AREA_SHARES.items():
        field = smooth(REGION_UM) + 0.12 * smooth(15)
        edge = np.quantile(field[inside > 0], 1 - area)
        shares[name] = rest / (1 + np.exp((edge - field) / 0.13))
        rest = rest - shares[name]
    shares["stroma"] = rest
    angle = rng.uniform(0, np.pi)
    straight = np.stack([np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x]) * cell_um
    fibers = straight + 75 * np.stack([smooth(90), smooth(90)])
    parts = (inside, np.stack([shares[name] for name in COMPARTMENTS]), fibers)
    return Tissue(cell_px, config.um_per_px, *(part.astype(np.float32) for part in parts))


def _draw_counts(config: SyntheticConfig, shares: Float[np.ndarray, "S 4"], rng: Generator) -> Int[np.ndarray, "S M"]:
    """Negative binomial counts, of a depth that has nothing to do with the tissue."""
    planted = len(planted_genes(config))
    base = default_rng([config.seed]).lognormal(0, 0.4, config.genes)
    slopes = np.array([PATTERNS.get(name.rstrip("0123456789"), (0, 0, 0, 0)) for name in gene_names(config)])
    rates = base * np.exp(shares @ slopes.T)
    # Planted genes divide a fixed part of the library, lest normalising by it carries tissue into the noise genes.
    for part in (slice(0, planted), slice(planted, config.genes)):
        rates[:, part] *= base[part].sum() / base.sum() / rates[:, part].sum(axis=1, keepdims=True)
    depth = rng.lognormal(-(DEPTH_SPREAD**2) / 2, DEPTH_SPREAD, (len(shares), 1))
    return rng.poisson(MEAN_LIBRARY * depth * rates * rng.gamma(1 / OVERDISPERSION, OVERDISPERSION, rates.shape))


def paint(section: Section) -> UInt8[np.ndarray, "H W 3"]:
    """The section as a slide: two stains mixed by Beer and Lambert's law, as strong as is the patient's habit."""
    tissue, rng = section.tissue, default_rng([*section.seed, 3])
    stains = _paint_matrix(tissue, rng)
    for name, look in LOOKS.items():
        stamps = _stamps(look, tissue.um_per_px, rng)
        side = stamps.shape[1]
        blend, changed = (np.maximum, stains[:1]) if look.stain else (np.minimum, stains)
        for top, left, stamp in _scatter(tissue, name, side // 2, rng):
            place = changed[:, top : top + side, left : left + side]
            blend(place, stamps[stamp], out=place)
    strength = 1 + default_rng(section.seed[:2]).uniform(-0.1, 0.1, 2)
    return np.take(_colors(*strength), stains[0].astype(np.uint16) * (TOP_LEVEL + 1) + stains[1], axis=0)


def _paint_matrix(tissue: Tissue, rng: Generator) -> UInt8[np.ndarray, "2 H W"]:
    """Levels of both stains between nuclei: cytoplasm, and fibres as long noise read along bent coordinates."""
    fine, coarse = rng.standard_normal((2, 512, 512), np.float32)
    table = gaussian_filter(fine, (2.2, 6.0), mode="wrap") + 3.0 * gaussian_filter(coarse, (7.0, 12.0), mode="wrap")
    table = np.clip(table / table.std(), -1.6, 2.2)

    def enlarge(field: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "H W"]:
        size = (field.shape[1] * tissue.cell_px, field.shape[0] * tissue.cell_px)
        return np.asarray(Image.fromarray(field).resize(size, Image.Resampling.BICUBIC))

    across, along = (enlarge(tissue.fibers_um[axis] / FIBER_UM[axis]).astype(np.int32) & 511 for axis in (0, 1))
    matrix = np.array([look.matrix for look in LOOKS.values()], np.float32)
    hematoxylin, eosin, contrast = (enlarge(field) for field in np.einsum("cs,chw->shw", matrix, tissue.shares))
    eosin = (eosin + table[across, along] * contrast) / EOSIN_STEP + rng.integers(0, 4, eosin.shape, np.uint8)
    # The outline is sharp: three micrometres from glass to tissue.
    cover = np.clip(enlarge(tissue.inside) * (CELL_UM / 3), 0, 1)
    levels = (hematoxylin / HEMATOXYLIN_STEP, eosin)
    return np.stack([np.clip(cover * level, 0, TOP_LEVEL).astype(np.uint8) for level in levels])


def _stamps(look: Look, um_per_px: float, rng: Generator) -> UInt8[np.ndarray, "N D D"]:
    """Soft ellipses in levels of haematoxylin, ``STAMP_ANGLES`` of each variant; without stain, holes in such."""
    half = math.ceil(max(look.radii_um) * (1 + look.spread) / um_per_px) + 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1] * um_per_px
    stamps = []
    for _ in range(STAMP_VARIANTS):
        long, short = np.array(look.radii_um) * (1 + look.spread * rng.uniform(-1, 1, 2))
        stain = look.stain * rng.uniform(0.85, 1.15)
        for angle in np.arange(STAMP_ANGLES) * np.pi / STAMP_ANGLES:
            a, b = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
            distance = np.hypot(a / long, b / short)
            filled = np.clip((1 - distance) * short / 1.2 + 0.5, 0, 1)
            clumps = gaussian_filter(rng.standard_normal(x.shape), 0.8 / um_per_px)
            chromatin = 0.9 + 0.13 * clumps / clumps.std() + 0.22 * np.exp(-(((distance - 0.85) / 0.15) ** 2))
            stamps.append(filled * chromatin * stain / HEMATOXYLIN_STEP if look.stain else (1 - filled) * TOP_LEVEL)
    return np.clip(stamps, 0, TOP_LEVEL).astype(np.uint8)


def _scatter(tissue: Tissue, name: str, half_px: int, rng: Generator) -> list[tuple[int, int, int]]:
    """Top, left and stamp of what stands on a shaken grid of staggered rows, as often as the share says."""
    look, (height, width) = LOOKS[name], np.array(tissue.inside.shape) * tissue.cell_px
    step = look.spacing_um / tissue.um_per_px
    rows, columns = np.mgrid[: int(height / step), : int(width / step)].reshape(2, -1)
    shake = rng.uniform(-look.jitter, look.jitter, (2, len(rows)))
    y = np.clip((rows + 0.5 + shake[0]) * step, half_px, height - half_px - 1).astype(int)
    x = np.clip((columns + 0.25 + rows % 2 / 2 + shake[1]) * step, half_px, width - half_px - 1).astype(int)
    cell = (y // tissue.cell_px, x // tissue.cell_px)
    turn = rng.integers(0, STAMP_ANGLES, len(y))
    if name == "stroma":
        down, right = np.gradient(tissue.fibers_um[0])
        angle = np.arctan2(down, right)[cell] + np.pi / 2 + rng.normal(0, 0.2, len(y))
        turn = np.rint(angle / np.pi * STAMP_ANGLES).astype(int) % STAMP_ANGLES
    stamp = rng.integers(0, STAMP_VARIANTS, len(y)) * STAMP_ANGLES + turn
    share = tissue.shares[COMPARTMENTS.index(name)][cell] * (tissue.inside[cell] * CELL_UM > max(look.radii_um))
    kept = rng.random(len(y)) < share
    return list(zip((y[kept] - half_px).tolist(), (x[kept] - half_px).tolist(), stamp[kept].tolist(), strict=True))


def _colors(hematoxylin_strength: float, eosin_strength: float) -> UInt8[np.ndarray, "levels 3"]:
    """RGB of every pair of levels; where haematoxylin is deep, as in nuclei, there is less eosin."""
    hematoxylin, eosin = np.mgrid[: TOP_LEVEL + 1, : TOP_LEVEL + 1].reshape(2, -1, 1)
    eosin = eosin * EOSIN_STEP * eosin_strength * (1 - 0.5 * hematoxylin / TOP_LEVEL)
    density = hematoxylin * HEMATOXYLIN_STEP * hematoxylin_strength * HEMATOXYLIN_OD + eosin * EOSIN_OD
    return np.rint(GLASS_RGB * 10**-density).astype(np.uint8)


def write_slide(path: Path, image: UInt8[np.ndarray, "H W 3"], um_per_px: float) -> None:
    """Write a tiled pyramidal TIFF whose um/px OpenSlide knows."""
    import tifffile

    options: dict[str, object] = {"photometric": "rgb", "tile": (256, 256), "resolutionunit": "CENTIMETER"}
    options |= {"compression": "zlib", "compressionargs": {"level": 4}, "software": False, "metadata": None}
    with atomic_write(path) as temporary, tifffile.TiffWriter(temporary) as writer:
        for step in PYRAMID_STEPS:
            pixels = np.asarray(Image.fromarray(image).reduce(step))
            writer.write(pixels, subfiletype=int(step > 1), resolution=(1e4 / um_per_px / step,) * 2, **options)
