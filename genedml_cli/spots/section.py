"""A slide and the spots on it."""

from pathlib import Path

import numpy as np

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.files.space_ranger import PICTURES, Pictures
from genedml_cli.files.spatialdata_files import StoreImage
from genedml_cli.slides.patches import PatchFile
from genedml_cli.slides.slide import Slide, open_slide
from genedml_cli.spots.lattice import nearest_distances
from genedml_cli.spots.spots import (
    FEW_OUTSIDE,
    LARGEST_PITCH_RATIO,
    MOST_SPOTS,
    Spots,
    outside_image,
    some_of,
    take_pitch,
)

SAME_SIZE = 0.01
"""How much the size of an image may differ from the one that a smaller copy of it tells."""

CLOSEST_PX = 2.0
"""Spots nearer to each other are array indices, whole or refined: those of ST are 1 apart, of Visium 1.4."""


def open_section(
    path: Path,
    spots: Spots,
    um_per_px: float | None = None,
    pitch_um: float | None = None,
    *,
    scale_needed: bool = True,
) -> Slide:
    """Open the slide that spots belong to and settle its um/px.

    ``um_per_px`` as the user says, else the slide's own, else ``pitch_um``, as the user or the file of the spots says,
    over the pitch of the spots in pixels.
    It may stay unknown if not ``scale_needed``, as for views in level-0 pixels.

    Raises:
        GeneDMLError: as :func:`genedml_cli.slides.slide.open_slide`; spots that are not of this slide; unknown um/px; a
            pitch that contradicts it.
    """
    slide = open_slide(path, um_per_px)
    pitch_um = spots.pitch_um if pitch_um is None else pitch_um
    try:
        check_on_slide(spots, slide)
        if pitch_um is not None and not slide.knows_scale:
            take_pitch(slide, spots, pitch_um)
        elif pitch_um is not None:
            _check_pitch(spots, slide, pitch_um)
        if scale_needed:
            slide.um_per_px  # noqa: B018  raises where it is still unknown
    except GeneDMLError:
        slide.close()
        raise
    return slide


def _check_pitch(spots: Spots, slide: Slide, pitch_um: float) -> None:
    if not spots.knows_pitch:
        return
    apart_um = spots.pitch_px * slide.um_per_px
    if not 1 / LARGEST_PITCH_RATIO <= apart_um / pitch_um <= LARGEST_PITCH_RATIO:
        raise GeneDMLError(
            f"At {slide.um_per_px:.4g} um/px the spots on {slide.path.name} are {apart_um:.0f} um apart, by the pitch "
            f"they are {pitch_um:g} um: um/px would be {pitch_um / spots.pitch_px:.4g}. Was the image exported anew at "
            "another size? Give the one that is right, and not the other."
        )


def check_full_image(slide: Slide, pictures: Pictures | None = None) -> None:
    """Refuse a picture of Space Ranger's in the place of the image that it was given; warn of one of another size.

    Args:
        slide: opened.
        pictures: what lies beside the table of spots; without it, such a picture is known by its name alone.

    Raises:
        GeneDMLError: named or as large as such a picture.
    """
    full_px = None if pictures is None else pictures.full_size_px
    size = "{} x {} px".format(*slide.size_px)
    about = "" if full_px is None else f", about {full_px[0]} x {full_px[1]} px"
    fix = f"Positions are pixels of the image that spaceranger count was given with --image{about}: give that one."
    picture = next((name for name in PICTURES if slide.path.name.endswith(name)), None)
    if picture is not None:
        raise GeneDMLError(f"{slide.path.name} ({size}) is a picture that Space Ranger made. {fix}")
    if pictures is None or (full_px is not None and np.allclose(slide.size_px, full_px, rtol=SAME_SIZE)):
        return
    picture = next((name for name, size_px in pictures.sizes_px.items() if size_px == slide.size_px), None)
    if picture is not None:
        raise GeneDMLError(f"{slide.path.name} ({size}) is as large as Space Ranger's {picture}. {fix}")
    if full_px is not None:
        console.warn(f"{slide.path.name} has {size}. {fix} Unless it was cut at its right and lower edges alone.")


def _check_store_image(slide: Slide, image: StoreImage) -> None:
    """Refuse a slide that is not as large as the image of a SpatialData store whose pixels the spots are."""
    if not np.allclose(slide.size_px, image.size_px, rtol=SAME_SIZE):
        raise GeneDMLError(
            "{} ({} x {} px) is not as large as {} ({} x {} px), the largest image of the store, whose pixels its "
            "spots are. Give that image as the slide, a store that holds the full image, or the folder that the "
            "instrument wrote.".format(slide.path.name, *slide.size_px, image.name, *image.size_px)
        )


def check_number(spots: Spots, slide: str) -> None:
    """Refuse a table of more spots than a view of a whole section can bear.

    Raises:
        GeneDMLError: with the command that sums them.
    """
    if len(spots) > MOST_SPOTS:
        size = "" if spots.summed_um is None else f" of {spots.summed_um:g} um"
        raise GeneDMLError(
            f"The table for {slide} has {len(spots):,} spots{size}, more than the {MOST_SPOTS:,} that see each other "
            "in a section. Sum bins or transcripts into larger ones: genedml data bin OUTS --um 100 -o section.h5ad; "
            "of other spots give a part."
        )


def check_on_slide(spots: Spots, slide: Slide) -> None:
    """Refuse spots that cannot belong to the slide.

    Raises:
        GeneDMLError: centres outside the image, or array indices given as pixels; a picture of Space Ranger's; a slide
            of another size than the image of the store that the spots are from.
    """
    check_full_image(slide, spots.pictures)
    if spots.image is not None:
        _check_store_image(slide, spots.image)
    check_number(spots, slide.path.name)
    width, height = slide.size_px
    x, y = spots.xy_px.T
    where = f"{slide.path.name} ({width} x {height} px)"
    span = f"x {x.min():.6g}..{x.max():.6g}, y {y.min():.6g}..{y.max():.6g}"
    distances = nearest_distances(spots.xy_px)
    if len(distances) and np.median(distances) < CLOSEST_PX:
        raise GeneDMLError(
            f"The spots for {where} span {span}: these are array indices, not pixels. Give full-resolution pixels."
        )
    outside = outside_image(spots, slide)
    if outside.any():
        many = "No spot lies" if outside.all() else f"{outside.sum()} of {len(spots)} spots do not lie"
        first = "" if outside.all() else f" (first: {spots.names[outside.argmax()]})"
        if (spots.xy_px >= 0).all() and ((x < height) & (y < width)).all():
            hint = " Are x and y exchanged?"
        elif outside.mean() < FEW_OUTSIDE:
            hint = " Are they of another slide? If the image is cut there, --skip-off-image leaves them out."
        else:
            hint = " Are they of another slide, or pixels of a smaller image?"
        raise GeneDMLError(f"{many} inside {where}{first}; spots span {span}.{hint} Give full-resolution pixels.")


def with_tiles(patches: PatchFile, spots: Spots) -> Spots:
    """The spots that have a tile in a patch file; those without one are counted on the terminal.

    Raises:
        GeneDMLError: none has.
    """
    has_tile = patches.places(spots.names) >= 0
    if not has_tile.any():
        raise GeneDMLError(
            f"No spot has a tile in {patches.path}: spots are called {', '.join(spots.names[:3])}, tiles "
            f"{', '.join(patches.names[:3])}. Fetch both files anew."
        )
    if not has_tile.all():
        console.note(f"{patches.path.name}: {(~has_tile).sum()} of {len(spots)} spots have no tile and are left out.")
    return some_of(spots, has_tile)
