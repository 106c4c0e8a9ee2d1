"""Which cells of a thumbnail show stained tissue: by optical density over the slide's own glass, by hue and texture.

Letters: H, W rows and columns of cells; C channels, which come first: sums over a last axis of three are slow. A cell
is a pixel of the thumbnail on which tissue is found.
"""

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from scipy.ndimage import binary_propagation, distance_transform_edt, gaussian_filter, label, uniform_filter

from genedml_cli.slides.pixels import WHITE

# Glass is where a spot fits (100 um, of Spatial Transcriptomics); narrower gaps are the lumens of fat cells and clefts.
SPOT_UM = 100.0
# Enclosed, no hole holds one that is no larger than a large fat cell (150 um across).
HOLE_UM2 = 20_000.0
# Twice the rings around Visium's capture area (18,000 um2 each, 150 um across), the largest print that is no tissue.
SPECK_UM2 = 40_000.0
JOINED_UM = 24.0  # what is nearer is one piece; the rings are about 40 um apart, their blur taken off

NEAR_UM, AROUND_UM = 8.0, 32.0  # standard deviations of blurs: of a nucleus, and of what lies around a few

# Optical densities, base 10, over those of the slide's glass, measured at 8 um/px on five ST sections (HER2ST C2 to
# C6), three Visium ones (mouse colon and brain, human heart) and a skin biopsy. Tissue is stained more than eosin that
# bled into the glass (up to .05), or is paler and uneven: darker than what lies around it, as fibres, or lighter, as
# hollows. Glass and bled eosin are uneven by .001 to .003, tissue by .03 to .2.
STAINED, HOLLOW, FIBRE, UNEVEN = 0.08, 0.03, 0.01, 0.01
# A membrane of fat is 1 to 2 um, so that its cells show a fifth of its stain or less. Fibres too faint to count alone
# (bolder ones are edges of tissue and of print) make a net where a seventh of the cells show them; on the glass of
# five ST sections a thousandth do. Fat cells torn by the knife leave lumens of twice their width.
FAINT, BOLD, NET_SHARE, LUMEN_UM = 0.005, 0.05, 0.15, 200.0
# Glass is even, lets a quarter of the light through, and is no more coloured than this as H&E is, or in any other way.
EVEN, DARKEST_GLASS, REDDEST_GLASS, TINTED_GLASS = 0.006, 0.6, 0.1, 0.3
EVEN_CELLS, GLASS_SHARE = 9, 0.001  # with less of it on the slide, the glass is taken to be white

# Haematoxylin and eosin both absorb green most (Ruifrok & Johnston 2001: green over the least absorbed of red and blue
# is .41 and .92, for a mean of .55 and .39); black ink, dust and borders are grey. Green ink and most blue absorb red
# more (tissue at most 1.16 times as much as green; bluer haematoxylin is left room), orange, brown and yellow ink blue
# (tissue at most .83).
GREYEST_STAIN = 0.25
REDDEST_STAIN, BLUEST_STAIN = (1.3, 0.03), (0.9, 0.03)
# Red and purple ink have hues of H&E, but are strong and even: roughness over colour is .02 (median) in strokes drawn
# on sections, and .04 to .2 in the evenest thousandth of tissue as strong.
STRONG, ROUGH = 0.3, 0.05
FOREIGN_DARK = 0.15  # paler foreign hues are left out alone, not with what is around them
INK_UM2, INK_EDGE_UM = 2_500.0, 50.0  # a smaller dot is no stroke; the blurred edge of one
# Levels (of 255) of padding, as written and as JPEG's ringing beside a slide leaves them; ink and dark borders that
# were scanned are lighter than the former. Cells that padding and slide share are this near to it.
BLACK, NEARLY_BLACK, SHARED_CELLS = 3, 24, 1.5


def stained(thumbnail: UInt8[np.ndarray, "H W 3"], cell_um: float) -> Bool[np.ndarray, "H W"]:
    """Tissue: what is stained well, or stained at all and uneven; ink and specks left out, narrow gaps closed."""
    colours = np.ascontiguousarray(np.moveaxis(thumbnail, 2, 0))
    padding = _padding(colours)
    colours = _continued(colours, padding)
    density = -np.log10((colours.astype(np.float32) + 1) / (WHITE + 1))
    near = _blur(density, NEAR_UM / cell_um)
    rise = near[1] - _blur(density[1:2], AROUND_UM / cell_um)[0]
    glass = _glass(near, np.abs(rise))
    stain, foreign = _stain(near - glass[:, None, None])
    ink = _ink(density, near, foreign, cell_um)
    fibres, hollows = (stain > FIBRE) & (rise > UNEVEN), (stain > HOLLOW) & (rise < -UNEVEN)
    mask = ((stain > STAINED) | fibres | hollows) & ~ink
    pieces = mask & _without_small(_grown(mask, JOINED_UM / 2 / cell_um), SPECK_UM2 / cell_um**2)
    mask &= _grown(pieces, SPOT_UM / cell_um)  # with loose ends of fat and stroma
    mask |= _fat(stain, rise, ink, pieces, cell_um)
    radius_um = SPOT_UM / 2  # what no spot fits into is filled; the rim by which the blur made tissue larger taken off
    mask = _closed(mask, radius_um / cell_um, (radius_um + NEAR_UM) / cell_um)
    mask = _fill_holes(mask, HOLE_UM2 / cell_um**2)
    return _without_small(mask & ~ink & ~padding, SPECK_UM2 / cell_um**2)


def _fat(
    stain: Float32[np.ndarray, "H W"],
    rise: Float32[np.ndarray, "H W"],
    ink: Bool[np.ndarray, "H W"],
    pieces: Bool[np.ndarray, "H W"],
    cell_um: float,
) -> Bool[np.ndarray, "H W"]:
    """Nets of fibres too faint to count alone, with the lumens between them, where they hang on pieces of tissue."""
    radius, opening = LUMEN_UM / 2 / cell_um, SPOT_UM / 2 / cell_um
    bold = _grown(stain > BOLD, 2 * NEAR_UM / cell_um)
    faint = (stain > FAINT) & (rise > FAINT) & ~bold & ~ink
    net = faint & (gaussian_filter(faint.astype(np.float32), radius) > NET_SHARE)
    if not net.any():
        return net
    net = _closed(net, radius, radius)
    net = _grown(~_grown(~net, opening), opening)  # without hairs and edges of coverslips
    joined = _grown(pieces, JOINED_UM / cell_um)
    return net & binary_propagation(joined, mask=net | joined)


def _padding(colours: UInt8[np.ndarray, "3 H W"]) -> Bool[np.ndarray, "H W"]:
    """Black beside the slide, which programs add to fill tiles or to turn a picture: it reaches the edge.

    With the cells that it shares with the slide.
    """
    lightest = colours.max(axis=0)
    at_edge = np.ones_like(lightest, dtype=bool)
    at_edge[1:-1, 1:-1] = False
    padding = binary_propagation(at_edge & (lightest <= BLACK), mask=lightest <= NEARLY_BLACK)
    return _grown(padding, SHARED_CELLS)


def _continued(colours: UInt8[np.ndarray, "3 H W"], padding: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "3 H W"]:
    """The slide continued into its padding by the nearest cells, so that nothing beside it counts as ink."""
    if not padding.any() or padding.all():
        return colours
    rows, columns = distance_transform_edt(padding, return_distances=False, return_indices=True)
    return colours[:, rows, columns]


def _blur(density: Float32[np.ndarray, "C H W"], cells: float) -> Float32[np.ndarray, "C H W"]:
    return gaussian_filter(density, (0, cells, cells))


def _glass(near: Float32[np.ndarray, "3 H W"], uneven: Float32[np.ndarray, "H W"]) -> Float32[np.ndarray, " 3"]:
    """The optical density of glass: the median of cells that are as even and pale as only glass is."""
    colour = near[1] - np.minimum(near[0], near[2])
    pale = (near.mean(axis=0) < DARKEST_GLASS) & (colour < REDDEST_GLASS) & (np.ptp(near, axis=0) < TINTED_GLASS)
    glass = pale & (uniform_filter(uneven, EVEN_CELLS) < EVEN)
    return np.median(near[:, glass], axis=1) if glass.mean() > GLASS_SHARE else np.zeros(3, dtype=np.float32)


def _stain(
    density: Float32[np.ndarray, "3 H W"],
) -> tuple[Float32[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Geometric mean of darkness and colour, and the dark cells of a colour that is no mixture of H and E.

    Darkness alone takes dust for tissue, colour alone the eosin that bled into the glass. The stain of foreign colours
    is 0.
    """
    red, green, blue = density
    dark = density.mean(axis=0)
    colour = green - np.minimum(red, blue)
    foreign = colour < GREYEST_STAIN * dark
    for other, (ratio, offset) in ((red, REDDEST_STAIN), (blue, BLUEST_STAIN)):
        foreign |= other > ratio * green + offset
    stain = np.where(foreign, 0, np.sqrt(np.maximum(dark, 0) * np.maximum(colour, 0)))
    return stain, foreign & (dark > FOREIGN_DARK)


def _ink(
    density: Float32[np.ndarray, "3 H W"],
    near: Float32[np.ndarray, "3 H W"],
    foreign: Bool[np.ndarray, "H W"],
    cell_um: float,
) -> Bool[np.ndarray, "H W"]:
    """Strokes of foreign colours, and strokes that are too strong and even for tissue, with their edges."""
    colour = np.ptp(near, axis=0)
    rough = uniform_filter(np.abs(density - near).max(axis=0), 3)
    ink = _without_small(foreign | ((colour > STRONG) & (rough < ROUGH * colour)), INK_UM2 / cell_um**2)
    return _grown(ink, INK_EDGE_UM / cell_um)


def _grown(mask: Bool[np.ndarray, "H W"], cells: float) -> Bool[np.ndarray, "H W"]:
    grown: Bool[np.ndarray, "H W"] = distance_transform_edt(~mask) <= cells if mask.any() else mask
    return grown


def _closed(mask: Bool[np.ndarray, "H W"], grow: float, shrink: float) -> Bool[np.ndarray, "H W"]:
    """A mask grown by some cells, then shrunk by some; it goes on beyond the edges as it is there."""
    if not mask.any() or mask.all():
        return mask
    margin = int(grow) + 2
    wide = _grown(np.pad(mask, margin, mode="edge"), grow)
    closed = distance_transform_edt(wide) > shrink if not wide.all() else wide
    return closed[margin:-margin, margin:-margin]


def _fill_holes(mask: Bool[np.ndarray, "H W"], cells: float) -> Bool[np.ndarray, "H W"]:
    glass, _ = label(~mask)
    small = np.bincount(glass.ravel()) < cells
    small[np.unique(np.concatenate([glass[[0, -1]].ravel(), glass[:, [0, -1]].ravel()]))] = False  # open to the edge
    small[0] = False  # tissue
    return mask | small[glass]


def _without_small(mask: Bool[np.ndarray, "H W"], cells: float) -> Bool[np.ndarray, "H W"]:
    pieces, _ = label(mask, np.ones((3, 3)))
    large = np.bincount(pieces.ravel()) >= cells
    large[0] = False  # glass
    return large[pieces]
