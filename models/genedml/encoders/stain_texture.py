"""StainTexture: an image encoder for H&E tiles that has no learned weights.

A tile becomes maps (stain density, band energy, nucleus-likeness, ...) at 1 or 2 um/px. A token is made of
what these maps average to over an area: the whole tile for token 0, one patch of 16 x 16 px (8 x 8 um) for
the others. Every channel is the same formula in both cases, so a column means the same in every row.

Four choices make it steady from section to section:

- Staining strength multiplies optical density; energies and spreads are logarithms, where it is an offset.
- What is measured along scale is given as a level and as differences between neighbouring scales.
- A filter is a product with two matrices that hold a sampled Gaussian and its reflection at the border: any
  scale is at hand, and at the default matmul precision CUDA keeps float32, where its convolutions use TF32.
- Mirrors and quarter turns permute the patch tokens and leave token 0 alone, to rounding.

Letters in shapes: N tiles, S pixels a side of a map, O pixels a side of another, D channels.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

TILE_UM = 112.0
PATCHES_A_SIDE = 14

HAEMATOXYLIN_RGB = (0.65, 0.70, 0.29)
EOSIN_RGB = (0.07, 0.99, 0.11)
"""Optical density of a stain in R, G, B (Ruifrok & Johnston 2001, Anal Quant Cytol Histol 23:291)."""

BACKGROUND_DENSITY = (0.10, 0.02)
"""Mean optical density where glass ends and tissue begins (80 % of light passes); how soft that edge is."""

NUCLEUS_DENSITY = (0.50, 0.08)
"""The same for haematoxylin and nuclei: above the 0.46 that the reference tiles below average to."""

BAND_SIGMAS_UM = {"h": (0.7, 1.4, 2.0, 2.8, 4.0), "e": (0.7, 1.4, 2.8), "od": (0.7, 1.4, 2.8)}
"""Gaussian widths s of the band passes G(s) - G(2s): chromatin (0.7) to the spacing of nuclei (4)."""

BLOB_SIGMAS_UM = (1.5, 2.5, 3.5)
"""A disc answers best at s = diameter / 2.83: nuclei of 4, 7 and 10 um, lymphocytes to carcinoma cells."""

COARSE_SIGMA_UM = 2.0
"""From this width on a map is filtered at 2 um/px: an eighth of the work, and the same scores."""

OPENING_WIDTHS_UM = (3, 5, 7, 9, 13, 19)
"""Sides of the squares of the granulometry: from slender nuclei to clumps of several."""

COHERENCE_SIGMAS_UM = (2.0, 5.0)
"""Windows of the local structure tensor: one nucleus, one bundle of fibres."""

# Mean and standard deviation of token 0, then of patch tokens, over 22,750 tiles around the spots of breast
# sections C2-C6 of HER2ST (Andersson et al. 2021; every 20th batch for patches). They only set the range.
# fmt: off
STANDARD: dict[str, tuple[float, float, float, float]] = {
    "log_h": (-0.76, 0.47, -0.93, 0.72), "log_e": (-3.37, 0.45, -3.50, 0.70),
    "log_od": (-1.31, 0.41, -1.44, 0.62), "residual": (0.044, 0.011, 0.044, 0.021),
    "saturation": (0.251, 0.071, 0.25, 0.12), "lightness": (0.615, 0.100, 0.62, 0.17),
    "background": (0.21, 0.23, 0.23, 0.32), "nucleus": (0.34, 0.15, 0.33, 0.32),
    "skew_h": (1.35, 0.75, 0.49, 0.69), "log_sd": (-1.73, 0.47, -2.36, 0.67),
    "log_sd_to_g": (-0.125, 0.092, -0.09, 0.13), "log_sd_to_b": (-0.45, 0.12, -0.28, 0.19),
    "h_band": (-5.4, 2.0, -6.5, 2.8), "h_band_to_1.4": (0.71, 0.18, 0.79, 0.59),
    "h_band_to_2.0": (0.046, 0.098, 0.15, 0.49), "h_band_to_2.8": (0.01, 0.11, 0.10, 0.58),
    "h_band_to_4.0": (-0.06, 0.13, -0.03, 0.74), "e_over_h_band_0.7": (-5.2, 1.4, -4.4, 2.4),
    "e_over_h_band_1.4": (-5.2, 1.4, -4.6, 2.4), "e_over_h_band_2.8": (-5.1, 1.4, -4.7, 2.3),
    "od_over_h_band_0.7": (-1.38, 0.26, -1.22, 0.41), "od_over_h_band_1.4": (-1.43, 0.24, -1.31, 0.41),
    "od_over_h_band_2.8": (-1.43, 0.23, -1.35, 0.41), "round": (0.0082, 0.0036, 0.008, 0.012),
    "round_to_2.5": (0.00149, 0.00069, 0.0014, 0.0066), "round_to_3.5": (0.00028, 0.00066, 0.0003, 0.0066),
    "spindle": (0.048, 0.020, 0.047, 0.045), "spindle_to_2.5": (0.0086, 0.0040, 0.008, 0.016),
    "spindle_to_3.5": (0.0034, 0.0028, 0.003, 0.014), "gap": (0.0050, 0.0025, 0.0048, 0.0069),
    "gap_to_2.5": (0.00129, 0.00076, 0.0013, 0.0051), "gap_to_3.5": (0.00081, 0.00055, 0.0008, 0.0055),
    "width": (0.065, 0.024, 0.064, 0.046), "width_to_5": (0.027, 0.013, 0.027, 0.034),
    "width_to_7": (-0.0037, 0.0049, -0.004, 0.032), "width_to_9": (-0.0106, 0.0062, -0.010, 0.034),
    "width_to_13": (0.014, 0.011, 0.014, 0.051), "width_to_19": (0.000, 0.011, 0.000, 0.068),
    "width_to_wider": (0.175, 0.063, 0.17, 0.13), "h_coherence": (0.40, 0.13, 0.40, 0.20),
    "h_coherence_to_5.0": (-0.139, 0.070, -0.13, 0.14), "h_alignment": (0.18, 0.14, 0.45, 0.27),
    "e_coherence": (0.147, 0.073, 0.15, 0.13), "e_coherence_to_5.0": (-0.045, 0.027, -0.042, 0.069),
    "e_alignment": (0.075, 0.074, 0.16, 0.16), "log_chromatin": (-6.2, 1.5, -7.8, 2.7),
    "log_cytoplasm": (-8.68, 0.91, -9.2, 1.4), "log_fibre": (-10.12, 0.58, -10.39, 0.89),
}
# fmt: on


class StainTexture(nn.Module):
    """Tiles of H&E at 0.5 um/px to 197 tokens: the tile, then its 14 x 14 patches row by row."""

    VERSION = 1
    """Part of the fingerprint: raise it with every change of the numbers, or old features pass for new ones."""

    WIDTH = len(STANDARD)

    def forward(self, tiles: Float[Tensor, "N 3 224 224"]) -> Float[Tensor, "N 197 D"]:
        """RGB in [0, 1] at 0.5 um/px; returns float32, about standardised and within +-10."""
        with torch.autocast(tiles.device.type, enabled=False):  # half precision would lose the weak bands
            raw = channels(token_means(tissue_maps(tiles.float())))
            # a patch varies more than a tile, and its logarithms have another mean
            tile, patch = torch.tensor([*STANDARD.values()], device=tiles.device).reshape(-1, 2, 2).unbind(1)
            table = torch.stack([tile] + [patch] * PATCHES_A_SIDE**2)
            tokens = torch.stack([raw[name] for name in STANDARD], dim=-1)
            standardised: Tensor = (tokens - table[..., 0]) / table[..., 1]
            return standardised.clamp(-10, 10)


def tissue_maps(tiles: Float[Tensor, "N 3 224 224"]) -> dict[str, Float[Tensor, "N S S"]]:
    """All maps whose area means the channels are made of; S is 112 (1 um/px) or 56 (2 um/px)."""
    # white is 1, and black stops at what 8 bits can tell from it
    density = halve(-torch.log10(tiles.clamp(1 / 256, 1)))
    rgb = halve(tiles)
    h, e, residual = stains(density).unbind(1)
    od = density.mean(1)
    maps = {"h": h, "e": e, "residual": residual, "od": od, "h2": h * h, "h3": h * h * h}
    for name, channel in zip(("od_r", "od_g", "od_b"), density.unbind(1), strict=True):
        maps |= {name: channel, f"{name}2": channel * channel}
    brightest, darkest = rgb.amax(1), rgb.amin(1)
    maps["saturation"] = (brightest - darkest) / (brightest + 0.05)
    maps["lightness"] = (brightest + darkest) / 2
    maps["background"] = 1 - soft_step(od, *BACKGROUND_DENSITY)
    for name, stain in (("h", h), ("e", e), ("od", od)):
        energies = band_energies(stain, BAND_SIGMAS_UM[name])
        maps |= {f"{name}_band{s}": energy for s, energy in energies.items()}
    for name, stain in (("h", h), ("e", e)):
        maps |= {f"{name}_{key}": value for key, value in structure(stain).items()}
    nucleus = soft_step(h, *NUCLEUS_DENSITY)
    maps |= {"nucleus": nucleus, "chromatin": nucleus * maps["h_band0.7"]}
    outside_nuclei = (1 - nucleus) * (1 - maps["background"])
    maps |= {
        "fibre": halve(outside_nuclei) * maps["e_gradient"],
        "cytoplasm": outside_nuclei * maps["od_band0.7"],
    }
    return maps | blobs(h) | granulometry(h)


def stains(density: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N 3 S S"]:
    """Optical density to haematoxylin, eosin (negative stain is none) and the residual orthogonal to both."""
    h, e = (normalize(torch.tensor(v, dtype=torch.float64), dim=0) for v in (HAEMATOXYLIN_RGB, EOSIN_RGB))
    residual = normalize(torch.linalg.cross(h, e), dim=0)
    unmix = torch.linalg.inv(torch.stack([h, e, residual])).tolist()
    h, e, residual = (sum(density[:, c] * unmix[c][k] for c in range(3)) for k in range(3))
    return torch.stack([h.clamp(min=0), e.clamp(min=0), residual], dim=1)


def band_energies(stain: Float[Tensor, "N S S"], sigmas_um: tuple[float, ...]) -> dict[float, Float[Tensor, "N O O"]]:
    """Squared band passes G(s) - G(2s)."""
    bands = {}
    for s in sigmas_um:
        level = stain if s < COARSE_SIGMA_UM else halve(stain)
        bands[s] = (gaussian(level, s) - gaussian(level, 2 * s)).square()
    return bands


def structure(stain: Float[Tensor, "N S S"]) -> dict[str, Float[Tensor, "N O O"]]:
    """Gradient tensor as energy and doubled-angle pair; its coherence in two windows (1: all one way)."""
    across, down = gaussian(stain, 1.0, (0, 1)), gaussian(stain, 1.0, (1, 0))
    maps = {"gradient": across**2 + down**2, "cos2": across**2 - down**2, "sin2": 2 * across * down}
    maps = {key: halve(value) for key, value in maps.items()}
    for s in COHERENCE_SIGMAS_UM:
        energy, cos2, sin2 = (gaussian(maps[key], s) for key in ("gradient", "cos2", "sin2"))
        maps[f"coherence{s}"] = torch.hypot(cos2, sin2) / (energy + 1e-4)
    return maps


def blobs(h: Float[Tensor, "N S S"]) -> dict[str, Float[Tensor, "N O O"]]:
    """Scale-normalised curvatures: down both ways in round nuclei, one way in spindles, up in gaps."""
    maps: dict[str, Tensor] = {}
    for s in BLOB_SIGMAS_UM:
        level = h if s < COARSE_SIGMA_UM else halve(h)
        xx, yy, xy = (gaussian(level, s, o) * s**2 for o in ((0, 2), (2, 0), (1, 1)))
        mean, spread = -(xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
        weaker = (mean - spread).clamp(min=0)
        maps |= {f"round{s}": weaker, f"spindle{s}": (mean + spread).clamp(min=0) - weaker}
        maps[f"gap{s}"] = (-mean - spread).clamp(min=0)
    return maps


def granulometry(h: Float[Tensor, "N S S"]) -> dict[str, Float[Tensor, "N S S"]]:
    """Haematoxylin by width of what holds it: what each larger square opening takes, and what none does."""
    left, maps = gaussian(h, 0.7), {}
    smooth = left
    for width in OPENING_WIDTHS_UM:
        opened = running_max(-running_max(-smooth, width), width)
        maps[f"width{width}"], left = left - opened, opened
    return maps | {"widthwider": left}


def running_max(image: Float[Tensor, "N S S"], width: int) -> Float[Tensor, "N S S"]:
    """Maximum over a centred square of odd width; doubling makes it log2(width) vector operations a side."""
    for dim in (1, 2):
        margin = (width // 2, width // 2)
        image = pad(image, margin if dim == 2 else (0, 0, *margin), value=-math.inf)
        span = 1
        while span < width:
            shift = min(span, width - span)
            length = image.shape[dim] - shift
            image = torch.maximum(image.narrow(dim, 0, length), image.narrow(dim, shift, length))
            span += shift
    return image


def halve(image: Float[Tensor, "*N S S"]) -> Float[Tensor, "*N O O"]:
    """Means of 2 x 2 pixels."""
    rows = image[..., 0::2, :] + image[..., 1::2, :]
    return (rows[..., 0::2] + rows[..., 1::2]) / 4


def gaussian(
    image: Float[Tensor, "N S S"], sigma_um: float, orders: tuple[int, int] = (0, 0)
) -> Float[Tensor, "N S S"]:
    """Gaussian, or its derivatives by um (orders: down, across), of tiles held at any resolution."""
    down, across = (gaussian_matrix(image.shape[-1], sigma_um, order, image.device) for order in orders)
    return down @ (image @ across.T)


@lru_cache(maxsize=256)
def gaussian_matrix(side_px: int, sigma_um: float, order: int, device: torch.device) -> Float[Tensor, "S S"]:
    """One-dimensional filter as a matrix, half-sample reflection at the border included."""
    um_per_px = TILE_UM / side_px
    reach = math.ceil(4 * sigma_um / um_per_px)
    t = torch.arange(-reach, reach + 1, dtype=torch.float64) * um_per_px
    kernel = torch.exp(-(t**2) / (2 * sigma_um**2))
    kernel = kernel / kernel.sum()
    if order == 1:
        kernel = kernel * t / sigma_um**2
    if order == 2:
        kernel = kernel * (t**2 / sigma_um**4 - 1 / sigma_um**2)
        kernel = kernel - kernel.mean()
    # inference tensors kept in the cache could not take part in a later backward pass
    with torch.inference_mode(False):
        source = torch.arange(side_px)[:, None] + torch.arange(-reach, reach + 1)
        source = torch.minimum(source % (2 * side_px), (-1 - source) % (2 * side_px))
        matrix = torch.zeros(side_px, side_px, dtype=torch.float64)
        matrix.scatter_add_(1, source, kernel.clone().expand(side_px, -1))
        return matrix.to(device, torch.float32)


def token_means(maps: dict[str, Float[Tensor, "N O O"]]) -> dict[str, Float[Tensor, "N 197"]]:
    """Mean of every map over the tile and over each patch."""
    means = {}
    for name, image in maps.items():
        side = image.shape[-1] // PATCHES_A_SIDE
        patches = image.reshape(-1, PATCHES_A_SIDE, side, image.shape[-1]).mean(2)
        patches = patches.reshape(-1, PATCHES_A_SIDE, PATCHES_A_SIDE, side).mean(3)
        means[name] = torch.cat([patches.mean((1, 2))[:, None], patches.flatten(1)], dim=1)
    return means


def channels(mean: dict[str, Float[Tensor, "N 197"]]) -> dict[str, Float[Tensor, "N 197"]]:
    """The numbers of a token, before standardisation, by name."""
    out = {"log_h": log(mean["h"], 0.05), "log_e": log(mean["e"], 0.01), "log_od": log(mean["od"], 0.03)}
    out |= {name: mean[name] for name in ("residual", "saturation", "lightness", "background", "nucleus")}
    sd_h = (mean["h2"] - mean["h"] ** 2).clamp(min=0).sqrt()
    third = mean["h3"] - 3 * mean["h"] * mean["h2"] + 2 * mean["h"] ** 3
    out["skew_h"] = third / (sd_h**3 + 1e-3)
    variances = {c: mean[f"od_{c}2"] - mean[f"od_{c}"] ** 2 for c in "rgb"}
    out |= level_and_steps("log_sd", {c: log(v.clamp(min=0).sqrt(), 0.03) for c, v in variances.items()})

    bands = {
        name: {s: log(mean[f"{name}_band{s}"], 1e-6) for s in sigmas_um} for name, sigmas_um in BAND_SIGMAS_UM.items()
    }
    out |= level_and_steps("h_band", bands["h"])
    for name in ("e", "od"):
        out |= {f"{name}_over_h_band_{s}": band - bands["h"][s] for s, band in bands[name].items()}
    for kind in ("round", "spindle", "gap"):
        out |= level_and_steps(kind, {s: mean[f"{kind}{s}"] for s in BLOB_SIGMAS_UM})
    out |= level_and_steps("width", {w: mean[f"width{w}"] for w in (*OPENING_WIDTHS_UM, "wider")})

    for stain in "he":
        windows = {s: mean[f"{stain}_coherence{s}"] for s in COHERENCE_SIGMAS_UM}
        out |= level_and_steps(f"{stain}_coherence", windows)
        length = torch.hypot(mean[f"{stain}_cos2"], mean[f"{stain}_sin2"])
        out[f"{stain}_alignment"] = length / (mean[f"{stain}_gradient"] + 1e-4)
    return out | {f"log_{name}": log(mean[name], 1e-5) for name in ("chromatin", "cytoplasm", "fibre")}


def level_and_steps(name: str, series: dict[Any, Float[Tensor, "N 197"]]) -> dict[str, Float[Tensor, "N 197"]]:
    """A series, along scale or colour, as its mean and the differences of neighbours.

    Neighbours rise and fall together; what tells tissues apart is the little by which they differ, and a
    regularised model uses it only where it has the size of the other channels.
    """
    values = list(series.values())
    steps = {f"{name}_to_{key}": b - a for key, a, b in zip([*series][1:], values, values[1:], strict=False)}
    return {name: torch.stack(values).mean(0)} | steps


def soft_step(value: Float[Tensor, "N S S"], threshold: float, softness: float) -> Float[Tensor, "N S S"]:
    """From 0 below the threshold to 1 above."""
    return torch.sigmoid((value - threshold) / softness)


def log(value: Float[Tensor, "N 197"], floor: float) -> Float[Tensor, "N 197"]:
    """Logarithm that levels off where the value is noise."""
    return torch.log(value + floor)
