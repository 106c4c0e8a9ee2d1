"""Which levels of a pyramid show what level 0 shows, at the size and in the place that their shape says.

Programs pad levels to whole tiles, store labels and macros as levels, or scale x and y by different factors.
"""

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy.ndimage import gaussian_filter

from genedml_cli.slides.sources import Size, Source

ROUNDING_PX = 2.0
"""By which the sides of a level may differ from those of level 0 over one factor."""
MOST_PLACES_A_SIDE, LEAST_PLACES_A_SIDE, PLACE_PX = 6, 2, 64
COMPARED_PX = 2**25
"""About so many pixels of the finer level are read: a second's work."""
BLUR_PX = 1.0
LEAST_CONTRAST = 2.0
"""Standard deviation of grey levels at the places of both levels, below which nothing can be compared."""
# On HER2ST sections, of levels 1/4 to 1/32, made by averaging, by leaving out pixels, or of JPEG quality 30: .975 to
# 1.00. Padded by 4 px .69 to .91, by 8 px .34 to .81, by 40 px -.07 to .32; of another section -.01 to .55.
LEAST_LIKENESS = 0.8


def why_not(source: Source, finer: int, level: int) -> str:
    """Why a level cannot stand for level 0, as a clause; an empty text if it can.

    Args:
        source: all levels of the slide.
        finer: the next finer level that can stand for level 0, with which this one is compared.
        level: the one in question.
    """
    whole, (width, height) = source.sizes_px[0], source.sizes_px[level]
    # Of a canvas that is larger than what was scanned, only the scanned area has whole pixels in every level.
    rounding_px = ROUNDING_PX * float(np.divide(whole, source.scanned_size_px).max())
    if not has_one_factor(whole, (width, height), rounding_px):
        across, down = whole[0] / width, whole[1] / height
        return f"its {width} x {height} px are level 0's over {across:.4g} across and {down:.4g} down"
    if likeness(source, finer, level) < LEAST_LIKENESS:
        return "it does not show what the finer levels show there"
    return ""


def has_one_factor(whole: Size, size: Size, rounding_px: float) -> bool:
    """Whether both sides of ``size`` are those of ``whole`` over one factor, but for so many pixels of rounding."""
    lowest = max(side / (small + rounding_px) for side, small in zip(whole, size, strict=True))
    highest = min(side / max(small - rounding_px, 1e-9) for side, small in zip(whole, size, strict=True))
    return lowest <= highest


def likeness(source: Source, finer: int, level: int) -> float:
    """Correlation of a level's grey with that of a finer level at places all over it; 1 where both show nothing."""
    (fine_width, fine_height), (width, height) = source.sizes_px[finer], source.sizes_px[level]
    place = min(PLACE_PX, width, height)
    across, down = fine_width / width, fine_height / height
    affordable = int((COMPARED_PX / (place**2 * across * down)) ** 0.5)
    a_side = max(LEAST_PLACES_A_SIDE, min(MOST_PLACES_A_SIDE, affordable))
    middles = (np.arange(a_side) + 0.5) / a_side
    products = []
    for x, y in np.stack(np.meshgrid(middles * (width - place), middles * (height - place)), -1).reshape(-1, 2):
        left, top = int(x), int(y)
        coarse = _grey(source.read(level, left, top, place, place), place)
        box = (int(left * across), int(top * down), round(place * across), round(place * down))
        fine = _grey(source.read(finer, *box), place)
        products.append([(coarse * fine).mean(), (coarse**2).mean(), (fine**2).mean()])
    together, of_coarse, of_fine = np.mean(products, axis=0)
    if max(of_coarse, of_fine) < LEAST_CONTRAST**2:
        return 1.0
    return float(together / max(np.sqrt(of_coarse * of_fine), LEAST_CONTRAST))


def _grey(region: Image.Image, side: int) -> Float[np.ndarray, "_ _"]:
    """A region's grey at the size of a place, around its mean, without what depends on how levels were made."""
    grey = np.asarray(region.convert("L").resize((side, side), Image.Resampling.BOX), dtype=float)
    smooth = gaussian_filter(grey, BLUR_PX)
    return smooth - smooth.mean()
