"""The named data sets as tables on the terminal."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genedml_cli import console
from genedml_cli.datasets.datasets import Dataset, Section


def show_datasets(known: Iterable[Dataset]) -> None:
    """One row a data set."""
    rows = [
        [
            one.name,
            one.platform,
            str(len(one.sections)),
            str(len(one.patients)),
            str(len(one.folds)),
            f"{one.pitch_um:g}",
            "yes" if one.panel else "-",
        ]
        for one in known
    ]
    console.table("Data sets", ["name", "platform", "sections", "patients", "folds", "pitch um", "panel"], rows)
    console.say("More of one, and what is on this disk: genedml data info NAME --root DIR")


def datasets_document(known: Iterable[Dataset]) -> list[dict[str, Any]]:
    """What :func:`show_datasets` shows, for programs."""
    return [
        {
            "name": one.name,
            "platform": one.platform,
            "sections": len(one.sections),
            "patients": len(one.patients),
            "folds": len(one.folds),
            "pitch_um": one.pitch_um,
            "panel": one.panel is not None,
        }
        for one in known
    ]


def dataset_document(known: Dataset, root: Path) -> dict[str, Any]:
    """What :func:`show_dataset` shows, for programs."""
    sections = [{**asdict(section), "here": on_disk(known, section, root)} for section in known.sections]
    (summary,) = datasets_document([known])
    return {**summary, "source": known.source, "licence": known.licence, "sections": sections}


def show_dataset(known: Dataset, root: Path) -> None:
    """What is known of a data set, and what is there of each section below ``root``."""
    states = {section.name: on_disk(known, section, root) for section in known.sections}
    rows = [
        [
            section.name,
            section.hest_id,
            section.patient + (f" = {section.donor}" if section.donor != section.patient else ""),
            section.fold,
            str(section.spots),
            f"{section.um_per_px:.4f}",
            states[section.name],
        ]
        for section in known.sections
    ]
    columns = ["section", "HEST id", "patient", "fold", "spots", "um/px", "here"]
    console.table(known.name, columns, rows)
    ready = sum(state in (WHOLE, TILES) for state in states.values())
    console.say(f"{known.platform}, pitch {known.pitch_um:g} um. Source: {known.source}.")
    console.say(f"Licence: {known.licence}.")
    if any(section.donor != section.patient for section in known.sections):
        console.say("A patient = another name: the same tissue stands in another data set under that name.")
    console.say(
        f"{ready} of {len(known.sections)} sections are below {root}/."
        + ("" if ready == len(known.sections) else f" Fetch: genedml data fetch {known.name} --root {root}")
    )


WHOLE, TILES, NOTHING = "slide", "tiles", "-"


def on_disk(known: Dataset, section: Section, root: Path) -> str:
    """``slide`` or ``tiles`` for a section that can be trained on, else what there is of it."""
    states = []
    for layout in known.layouts:
        files = layout(section.name, section.hest_id, root)
        if files.spots and files.counts and (files.slide or files.patches):
            return WHOLE if files.slide else TILES
        parts = {"image": files.slide or files.patches, "spots": files.spots, "counts": files.counts}
        states.append(", ".join(name for name, file in parts.items() if file))
    return next((f"only {state}" for state in states if state), NOTHING)
