"""What was found in the sections of a data set, as a table on the terminal."""

from collections.abc import Sequence

from genedml_cli import console
from genedml_cli.datasets.checking import SectionCheck


def show_checks(name: str, checks: Sequence[SectionCheck], last_words: str = "are as the table says") -> None:
    """One row a section, and under the table what is wrong."""
    rows = [
        [
            check.section.name,
            check.image or "-",
            _number(check.section.um_per_px),
            _number(check.file_um_per_px),
            _number(check.array_um_per_px),
            _share(check.with_counts, check.spots),
            "-" if check.panel_genes is None else str(check.panel_genes),
            check.state,
        ]
        for check in checks
    ]
    columns = ["section", "image px", "um/px", "of image", "of spots", "with counts", "panel", ""]
    console.table(f"{name} on this disk", columns, rows)
    console.say(
        "um/px: as the sheet or data set says; of image: as the file says; of spots: by their pitch. panel: how many "
        "genes of a published panel the counts have. -: not said."
    )
    for check in checks:
        for problem in check.problems:
            console.say(f"{check.section.name}: {problem}")
    good = sum(check.state == "ok" for check in checks)
    every = f"All {good}" if good == len(checks) else f"{good} of {len(checks)}"
    console.say(f"{every} sections {last_words}.")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _share(part: int | None, whole: int | None) -> str:
    return "-" if part is None or whole is None else f"{part}/{whole}"
