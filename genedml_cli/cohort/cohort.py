"""Predict many slides, a sheet row each: every result is whole or absent, and one bad slide costs only itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from genedml.errors import GeneDMLError
from genedml_cli import console
from genedml_cli.cohort import results as cohort_results
from genedml_cli.cohort.results import MERGED, PAGE, PSEUDOBULK
from genedml_cli.cohort.shares import Share, join_shares, row_of, settings_of
from genedml_cli.cohort.slide import ERROR_LOG, FAILED, CohortSlide, CohortTask, Outcome
from genedml_cli.datasets.sheets import FIRST_LINE, Row, is_file_name, number, read_rows
from genedml_cli.files.locks import claimed
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.provenance import maker, now
from genedml_cli.files.storage import refuse_overwriting_inputs, shown_to_workers, write_text
from genedml_cli.machine.compute import AUTO, BATCH_SPOTS, Compute, all_deterministic
from genedml_cli.machine.crew import Executor, Failed
from genedml_cli.machine.executors import HERE, executor
from genedml_cli.machine.shards import Shard
from genedml_cli.machine.stopping import on_stop
from genedml_cli.notes import marks_of
from genedml_cli.outputs.formats import check_output_path
from genedml_cli.outputs.run_folder import default_model, model_files
from genedml_cli.slides.slide_files import files_of
from genedml_cli.spots.placing import Placing
from genedml_cli.text import shown

REQUIRED_COLUMNS = ("slide",)
OPTIONAL_COLUMNS = dict.fromkeys(
    ("name", "spots", "um_per_px", "pitch_um", "tissue", "section"), True
)  # their cells may be empty
SUMMARY = "summary.csv"
RESERVED = [Path(name).stem for name in (SUMMARY, PSEUDOBULK, MERGED, PAGE)]
NAMED = 10


@dataclass(frozen=True)
class Cohort:
    """What became of every slide, in the order of the sheet, and the folder of the results.

    Of a shard these are its slides alone.
    """

    folder: Path
    outcomes: tuple[Outcome, ...]
    shard: Shard | None = None

    @property
    def failed(self) -> list[Outcome]:
        """The slides without a result of this cohort."""
        return [outcome for outcome in self.outcomes if outcome.state == FAILED]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        slides = [
            {key: value for key, value in asdict(one).items() if key != "log"} | {"marks": marks_of(one.marks)}
            for one in self.outcomes
        ]
        return {"folder": self.folder, "slides": slides, "made_by": maker()}

    def write(self) -> None:
        """``summary.csv`` beside the results."""
        table = pd.DataFrame(self.to_dict()["slides"]).astype({"spots": "Int64", "genes": "Int64"})
        write_text(self.folder / SUMMARY, table.round({"minutes": 3}).to_csv(index=False))

    def refuse_failures(self) -> None:
        """End with an error where a slide failed.

        Raises:
            GeneDMLError: naming them.
        """
        if self.failed:
            names = ", ".join(outcome.name for outcome in self.failed[:NAMED])
            more = f" and {len(self.failed) - NAMED} more" if len(self.failed) > NAMED else ""
            raise GeneDMLError(
                f"{len(self.failed)} of {len(self.outcomes)} slides failed: {names}{more}; {SUMMARY} says why. Fix "
                "their rows or files and run the same command again: results that are there are kept."
            )


def read_cohort(path: Path, placing: Placing) -> list[CohortSlide]:
    """Read a sheet of slides: CSV with ``slide`` and, if you like, ``name,spots,um_per_px,pitch_um,tissue,section``.

    Paths are relative to the sheet. Without a name, a result is called as its slide; without spots, it is predicted on
    a grid. ``placing`` is for the rows that do not say their own.

    Raises:
        GeneDMLError: an unreadable sheet, unknown columns, cells that are no numbers, names that are no file names or
            stand twice. Files that are not there are the matter of their slide.
    """
    slides = []
    for row in read_rows(path, "sheet of slides", REQUIRED_COLUMNS, OPTIONAL_COLUMNS, "slide"):
        slide = path.parent / str(row["slide"])
        name, spots, tissue = row["name"] or slide.stem, row["spots"], row["tissue"]
        own: dict[str, Any] = {column: number(row, column, path, name) for column in ("um_per_px", "pitch_um")}
        own["tissue"] = None if tissue is None else path.parent / tissue
        own["section"] = section_of(row, path, name)
        said = {column: value for column, value in own.items() if value is not None}
        where = None if spots is None else path.parent / spots
        slides.append(CohortSlide(name, slide, where, replace(placing, **said)))
    _check_names([slide.name for slide in slides], path)
    return slides


def section_of(row: Row, path: Path, name: str) -> int | None:
    """The section that a row asks for; None where its cell is empty.

    Raises:
        GeneDMLError: no whole number from 1 on.
    """
    section = number(row, "section", path, name)
    if section is not None and not (section >= 1 and section.is_integer()):
        raise GeneDMLError(f"{path}: section of {name} is {section:g}. Give 1, 2 and so on, as --preview numbers them.")
    return None if section is None else int(section)


@takes_paths
def predict_cohort(
    sheet: Path,
    model: Path | None,
    out: Path,
    *,
    fold: str | None = None,
    min_cv_pcc: float | None = None,
    interval: float | None = None,
    placing: Placing = Placing(),  # noqa: B008  frozen
    weights: Path | None = None,
    compute: Compute = AUTO,
    batch_spots: int = BATCH_SPOTS,
    resume: bool = True,
    on: str = HERE,
    formats: Sequence[str] = (),
    merge: bool = False,
    shard: Shard | None = None,
    collect: bool = False,
    verify: bool = False,
) -> Cohort:
    """Predict every slide of a sheet.

    Args:
        sheet, placing: as :func:`read_cohort` takes them.
        model, fold, weights: as of :func:`genedml_cli.prediction.prediction.predict`; loaded once for all slides.
        out: folder of the results: ``NAME.h5ad`` of every slide; ``summary.csv``, ``pseudobulk.csv`` (mean of every
            gene, a row a slide) and ``cohort.html`` of them all; ``errors.log`` if there was an unexpected error.
        min_cv_pcc, interval, batch_spots: as of :func:`genedml_cli.prediction.prediction.predict`.
        compute, on: as :func:`genedml_cli.machine.executors.executor` takes them. On a CPU results do not
            depend on ``on``, where torch has as many threads (:class:`genedml_cli.machine.crew.Place`).
        resume: keep results that are there and were made from the same slide, spots and models; one made from others
            is a failure of its row. Without it, every slide is predicted again.
        formats: suffixes of :data:`genedml_cli.outputs.formats.FORMATS`, as which every slide is written, too.
        merge: also :func:`genedml_cli.cohort.results.merge` the slides that have a result.
        shard: predict the slides of this shard alone. What is of all slides is left to ``collect``.
        collect: predict none: join what the shards left.
        verify: read every slide of a result that is there, to see whether it is the same; else size and time say so.

    Returns:
        What became of every slide. A slide that fails does not stop the others.

    Raises:
        GeneDMLError: what is wrong with the sheet, the models or the folder, before any slide is read.
    """
    slides, engine = read_cohort(sheet, placing), executor(on, compute)
    suffixes = tuple(suffix for suffix in dict.fromkeys(formats) if suffix != ".h5ad")
    _check_outputs(sheet, slides, out, suffixes, merge)
    files = tuple(model_files(model or default_model(), fold))
    task = CohortTask(files, out, weights, compute, batch_spots, min_cv_pcc, interval, resume, suffixes, verify=verify)
    with _at_work_in(out, wanted=shard is None), all_deterministic(compute.deterministic):
        if shard is not None:
            return _predict_share(task, slides, engine, shard)
        cohort = _join(task, slides) if collect else _predict_all(task, slides, engine)
        cohort.write()
        cohort_results.gather(out, cohort.outcomes)
        if merge and len(cohort.failed) < len(slides):
            cohort_results.merge(out, cohort.outcomes)
    return cohort


@contextmanager
def _at_work_in(out: Path, wanted: bool) -> Iterator[None]:
    """Alone in a folder of results, if that is ``wanted``; says what is kept where it is stopped."""
    kept = f"Finished slides are kept in {out}. To go on, run the same command again."
    with claimed(out / SUMMARY, f"The cohort in {out}", wanted), on_stop(kept):
        yield


def _check_outputs(sheet: Path, slides: Sequence[CohortSlide], out: Path, suffixes: Sequence[str], merge: bool) -> None:
    """Refuse kinds of file that cannot be written here, and to write over what is read."""
    for suffix in suffixes:
        check_output_path(out / f"{slides[0].name}{suffix}")
    results = [out / f"{slide.name}{suffix}" for slide in slides for suffix in (".h5ad", *suffixes)]
    together = [out / name for name in (SUMMARY, ERROR_LOG, PSEUDOBULK, PAGE, *([MERGED] if merge else []))]
    read = [file for slide in slides for file in (slide.slide, slide.spots, slide.placing.tissue)]
    refuse_overwriting_inputs([*together, *results], [sheet, *read])


def _join(task: CohortTask, slides: Sequence[CohortSlide]) -> Cohort:
    """What shards left of all slides."""
    cohort = Cohort(task.out, tuple(join_shares(slides, task)))
    for outcome in cohort.failed:
        _append_log(task.out / ERROR_LOG, outcome)
    return cohort


def _predict_share(task: CohortTask, slides: Sequence[CohortSlide], engine: Executor, shard: Shard) -> Cohort:
    """Predict the slides of a shard and leave what became of them for those who join them, who also keep the log."""
    share = shard.take(slides)
    cohort = replace(_predict_all(task, share, engine, logged=False), shard=shard)
    Share(shard, settings_of(task), {slide.name: row_of(slide) for slide in share}, cohort.outcomes).write(task.out)
    return cohort


def _predict_all(task: CohortTask, slides: Sequence[CohortSlide], engine: Executor, logged: bool = True) -> Cohort:
    """Predict slides, the largest first; say what became of each as it comes."""
    outcomes: dict[str, Outcome] = {}
    with shown_to_workers(task.out) as seen, console.progress("Slides", len(slides)) as advance:
        queue = sorted(slides, key=_size, reverse=True)
        for outcome in predict_slides(replace(task, seen=seen), queue, engine):
            outcomes[outcome.name] = outcome
            advance(note=outcome.name)
            why = f": {outcome.problem}" if outcome.problem else ""
            console.note(f"{len(outcomes)}/{len(slides)} {outcome.name}: {outcome.state}{why}")
            if logged:
                _append_log(task.out / ERROR_LOG, outcome)
    # A cluster gives absolute paths back.
    return Cohort(task.out, tuple(replace(outcomes[slide.name], slide=slide.slide) for slide in slides))


def _size(slide: CohortSlide) -> int:
    """Bytes of a slide, by which its time is guessed; 0 of one that is not there, which is told later."""
    try:
        return sum(file.stat().st_size for file in files_of(slide.slide))
    except OSError:
        return 0


def predict_slides(task: CohortTask, slides: Sequence[CohortSlide], engine: Executor) -> Iterator[Outcome]:
    """The outcome of every slide as it comes; one whose process died has failed.

    Raises:
        GeneDMLError: the models cannot be loaded.
    """
    for outcome in engine.run(task.load_at, task.predict, slides):
        yield _died(outcome) if isinstance(outcome, Failed) else outcome


def _died(failed: Failed[CohortSlide]) -> Outcome:
    problem = (
        f"the process that predicted it died ({failed.reason}). {failed.remedy}; else a library could not bear the "
        "file: export the slide anew."
    )
    return Outcome(failed.job.name, failed.job.slide, FAILED, problem=problem)


def _check_names(names: Sequence[str], path: Path) -> None:
    lines: dict[str, int] = {}
    for line, name in enumerate(names, FIRST_LINE):
        if not is_file_name(name):
            raise GeneDMLError(
                f"{path}, line {line}: {name!r} cannot be the name of a file. Give the slide a plain one in the column "
                "name."
            )
        if name.casefold() in RESERVED:
            raise GeneDMLError(f"{path}, line {line}: {name} is the name of a file of the whole cohort. Give another.")
        # Some file systems do not tell A1 from a1.
        if name.casefold() in lines:
            raise GeneDMLError(
                f"{path}, lines {lines[name.casefold()]} and {line}: both results would be called {name}. Give each "
                "slide a name of its own in the column name."
            )
        lines[name.casefold()] = line


def _append_log(path: Path, outcome: Outcome) -> None:
    """Put the traceback of an unforeseen error, if there was one, at the end of a file."""
    if not outcome.log:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.write(shown(f"{now()} {outcome.name} ({outcome.slide})\n{outcome.log}\n"))
    except OSError as error:  # which is not to cost the other slides theirs
        console.warn(f"{path} cannot be written: {error.strerror}. What it was to take:\n{outcome.log}")
