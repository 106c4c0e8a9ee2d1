"""One slide of a cohort: predicted into its file, kept as it is there, or failed with a reason."""

import socket
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import anndata

from genedml.errors import GeneDMLError, lines_of
from genedml.schema import from_dict
from genedml_cli import console
from genedml_cli.files.locks import exclusive
from genedml_cli.files.paths import check_seen
from genedml_cli.files.provenance import command_line
from genedml_cli.files.storage import write_json
from genedml_cli.files.text_files import read_json
from genedml_cli.machine.compute import AUTO, BATCH_SPOTS, Compute
from genedml_cli.machine.crew import Place
from genedml_cli.notes import Note
from genedml_cli.outputs.formats import write
from genedml_cli.outputs.prediction_file import read_prediction
from genedml_cli.outputs.prediction_record import record_of, set_record
from genedml_cli.slides.slide_files import Fingerprint, fingerprint
from genedml_cli.spots.placing import Placing
from genedml_cli.spots.spot_files import spots_file
from genedml_cli.text import shown

if TYPE_CHECKING:  # whoever hands out slides predicts none, and does without torch
    from genedml_cli.prediction.ensemble import Ensemble

PREDICTED, KEPT, FAILED = "predicted", "kept", "FAILED"
ERROR_LOG = "errors.log"
FINGERPRINTS = ".fingerprints"
"""The folder beside the results that holds by what each slide, its spots and its tissue are known again."""


@dataclass(frozen=True)
class CohortSlide:
    """One row of a sheet: a slide, what its result is called, its spots (None for a grid), how they come to stand."""

    name: str
    slide: Path
    spots: Path | None
    placing: Placing = field(default_factory=Placing)


@dataclass(frozen=True)
class Outcome:
    """What became of a slide.

    Args:
        name: of the row.
        slide: its file.
        state: ``predicted``, ``kept`` (it was there, made from the same) or ``FAILED``.
        spots: predicted.
        genes: predicted.
        minutes: that it took.
        marks: the notes that warn, which must stand in every table of it.
        problem: why it failed, and what next.
        log: the traceback of an unforeseen error.
    """

    name: str
    slide: Path
    state: str
    spots: int | None = None
    genes: int | None = None
    minutes: float = 0.0
    marks: tuple[Note, ...] = ()
    problem: str = ""
    log: str = ""


@dataclass(frozen=True)
class CohortTask:
    """What every slide of a cohort is predicted with; whoever predicts one loads the models by it.

    ``command`` and ``host`` are those of the process which asks for it, not of one that does it; ``seen`` is a file
    that it left in ``out``, and that whoever does it must see there.
    """

    files: tuple[Path, ...]
    out: Path
    weights: Path | None = None
    compute: Compute = AUTO
    batch_spots: int = BATCH_SPOTS
    min_cv_pcc: float | None = None
    interval: float | None = None
    resume: bool = True
    formats: tuple[str, ...] = ()
    command: str = field(default_factory=command_line)
    host: str = field(default_factory=socket.gethostname)
    verify: bool = False
    seen: Path | None = None

    def load_at(self, place: Place) -> "Ensemble":
        """The models and their encoder, to stay in memory for all slides at a place; the first says which they are."""
        from genedml_cli.features.overlap import encode_on
        from genedml_cli.prediction.ensemble import load_models, say_which

        if self.seen is not None:
            check_seen(self.seen)
        encode_on(place.cores)
        with nullcontext() if place.number == 0 else console.quieted():
            models = load_models(self.files, self.weights, self.compute, keep=True)
            say_which(models)
        return models

    def predict(self, models: "Ensemble", slide: CohortSlide) -> Outcome:
        """Predict one slide into its file; whatever goes wrong is told in the outcome."""
        started = time.perf_counter()
        with console.about(slide.name), exclusive(self.out / slide.name):  # of two of a shard one waits
            try:
                outcome = _predict_or_keep(self, models, slide)
            except Exception as error:  # one slide's surprise is not to cost the others theirs
                problem, log = " ".join(lines_of(error)), ""
                if not problem:
                    problem = f"{type(error).__name__}: {error} (unforeseen; {ERROR_LOG} has the traceback)"
                    log = traceback.format_exc()
                where = "" if socket.gethostname() == self.host else f" This was on {socket.gethostname()}."
                outcome = Outcome(slide.name, slide.slide, FAILED, problem=shown(f"{problem}{where}"), log=log)
        return replace(outcome, minutes=(time.perf_counter() - started) / 60)


def _predict_or_keep(task: CohortTask, models: "Ensemble", slide: CohortSlide) -> Outcome:
    from genedml_cli.features.feature_file import features_beside
    from genedml_cli.prediction.prediction import predict_slide

    file = task.out / f"{slide.name}.h5ad"
    if task.resume and file.exists():
        with features_beside(file):  # of a process that was killed right after its result was written
            return _keep(task, file, models, slide)
    anew = replace(task, verify=True)  # what is predicted is read
    asked = _asked(anew, slide, models)
    with features_beside(file) as folder:
        asked_for = task.min_cv_pcc, task.batch_spots, folder, task.interval
        data = predict_slide(models, slide.slide, slide.spots, slide.placing, *asked_for)
        if _asked(anew, slide, models) != asked:
            raise GeneDMLError(f"Spots or tissue of {slide.slide} were exchanged while it was predicted. Run it again.")
        record = record_of(data)
        set_record(data, replace(record, inputs={"slide": record.slide_sha256, **asked}, command=task.command))
        write(data, file)
    _sha256_of(slide.slide, task, slide.name)
    _write_formats(task, data, slide)
    return _done(slide, PREDICTED, data.shape, record.notes)


def _sha256_of(path: Path, task: CohortTask, name: str) -> str:
    """The content of a file, folder or slide, which is read where sizes or times are not those of the last time.

    ``name`` is that of its file among the fingerprints.
    """
    file = task.out / FINGERPRINTS / f"{name}.json"
    last = from_dict(Fingerprint, read_json(file)) if file.exists() and not task.verify else None
    now = fingerprint(path, last)
    if now != last:
        write_json(file, asdict(now))
    return now.sha256


def _keep(task: CohortTask, file: Path, models: "Ensemble", slide: CohortSlide) -> Outcome:
    """A result that is there, if it was made from the same.

    Raises:
        GeneDMLError: it was made from something else, is damaged, or does not say what it was made from.
    """
    again = "Give another -o, or predict all again with --no-resume."
    try:
        data = read_prediction(file)
    except GeneDMLError as error:
        raise GeneDMLError(f"{error} {again}") from error
    record = record_of(data)
    if record.inputs is None:
        raise GeneDMLError(f"{file} is there, but was not made by predicting a cohort. {again}")
    wanted = {"slide": _sha256_of(slide.slide, task, slide.name), **_asked(task, slide, models)}
    differ = [key.replace("_", " ") for key, value in wanted.items() if record.inputs.get(key) != value]
    if differ:
        raise GeneDMLError(f"{file} is there, but was made from other {', '.join(differ)}. {again}")
    _write_formats(task, data, slide)
    return _done(slide, KEPT, data.shape, record.notes)


def _write_formats(task: CohortTask, data: anndata.AnnData, slide: CohortSlide) -> None:
    """The other kinds of file beside the ``.h5ad``; of a kept result too, so that they are of the same prediction."""
    for suffix in task.formats:
        write(data, task.out / f"{slide.name}{suffix}")


def _asked(task: CohortTask, slide: CohortSlide, models: "Ensemble") -> dict[str, str]:
    """All but its slide that a result depends on, each by what a difference of it is called."""
    tissue, section = slide.placing.tissue, slide.placing.section
    spots, outline = f"a {slide.placing.grid} grid", "found"
    if slide.spots is not None:
        spots = _sha256_of(spots_file(slide.spots), task, f"spots/{slide.name}")
    if tissue is not None:
        outline = _sha256_of(tissue, task, f"tissue/{slide.name}")
    return {
        "spots": spots,
        "tissue": outline + (f", section {section}" if section else ""),
        "models": " ".join(models.fingerprints),
        "um_per_px": str(slide.placing.um_per_px),
        "pitch_um": str(slide.placing.pitch_um),
        "min_cv_pcc": str(task.min_cv_pcc),
        "interval": str(task.interval),
        "allow_off_tissue": str(slide.placing.allow_off_tissue),
        "skip_off_image": str(slide.placing.skip_off_image),
        "references": models.references_sha256,
    }


def _done(slide: CohortSlide, state: str, shape: tuple[int, ...], notes: Sequence[Note]) -> Outcome:
    spots, genes = shape
    return Outcome(slide.name, slide.slide, state, spots, genes, marks=tuple(note for note in notes if note.warns))
