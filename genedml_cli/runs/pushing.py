"""A run's models -> a repository of the Hugging Face hub, without the names of patients, donors and sections."""

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genedml.checkpoint import ModelCard, checkpoint_bytes, load_card, load_state
from genedml.encoders.table import licence_of
from genedml.errors import GeneDMLError
from genedml.hub import hub_reason
from genedml.networks.registry import title_of, variant_of
from genedml_cli import console
from genedml_cli.datasets.samples import ALL_SECTIONS
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.storage import sha256_of, write_json, write_text
from genedml_cli.files.text_files import read_json
from genedml_cli.outputs.hub_models import LIST, MODEL_BYTES, is_hub_name, parse_name
from genedml_cli.outputs.run_folder import RECORD, model_file, model_files_in, read_record, reference_file
from genedml_cli.text import gigabytes

CARD = "README.md"
REFERENCES = ("ridge", "novelty")
SHOWN = {"pcc_a": "PCC(A)", "pcc_h": "PCC(H)", "mse": "MSE"}


@dataclass(frozen=True)
class Pushed:
    """What was put on the hub.

    Args:
        page: of the repository.
        files: by name.
        size: of all, in bytes.
    """

    page: str
    files: tuple[str, ...]
    size: int


@takes_paths
def push(run: Path, model: Path) -> Pushed:
    """Put the finished models of a run, their references and a card on the hub, in one commit.

    The repository is made, private, if it is not there. Sections, patients, donors and folds are numbered in place of
    their names; slides are still known by their hashes, so that a prediction of one is marked.

    Args:
        run: the run folder.
        model: ``hf://owner/name``.

    Raises:
        GeneDMLError: no finished model; a name of another form; models larger than a repository may be; the hub out of
            reach, or without leave to write there. Nothing is on the hub then.
    """
    repository, revision = parse_name(model)
    if revision != "main":
        raise GeneDMLError(f"A push makes a revision of its own; leave out @{revision}.")
    if is_hub_name(run) or not model_files_in(run):
        raise GeneDMLError(f"{run} is no run folder with a finished model. Give one that genedml train wrote.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_repository(run, folder, repository)
        files = sorted(folder.iterdir())
        size = sum(file.stat().st_size for file in files)
        if size > MODEL_BYTES:
            raise GeneDMLError(f"The models of {run} take {gigabytes(size)}, more than {gigabytes(MODEL_BYTES)}.")
        page = _upload(files, repository)
    return Pushed(page, tuple(file.name for file in files), size)


def write_repository(run: Path, folder: Path, repository: str) -> None:
    """All files of the repository: models and references, without names, the list of them, and the card."""
    files = model_files_in(run)
    cards = {fold: load_card(file) for fold, file in files.items()}
    named, folds = numbered(list(cards.values()), _files_of(run)), numbered_folds(files)
    written = []
    for fold, file in files.items():
        card = without_names(cards[fold], named, folds)
        out = model_file(folder, card.fold)
        out.write_bytes(checkpoint_bytes(card, load_state(file)))
        references = {reference_file(file, kind): reference_file(out, kind) for kind in REFERENCES}
        for beside, to in references.items():
            if beside.is_file():
                to.write_bytes(beside.read_bytes())
        written += [out, *(to for to in references.values() if to.is_file())]
    listed = [{"name": one.name, "size": one.stat().st_size, "sha256": sha256_of(one)} for one in written]
    write_json(folder / LIST, listed)
    scores = read_json(run / "metrics.json") if (run / "metrics.json").is_file() else {}
    write_text(folder / CARD, model_card(list(cards.values()), scores, named, repository))


def _files_of(run: Path) -> list[str]:
    """Names of the files that a run read, as notes give them."""
    samples = read_record(run)["samples"] if (run / RECORD).is_file() else []
    return [Path(sample[kind]).name for sample in samples for kind in ("slide", "spots", "counts") if sample.get(kind)]


def numbered_folds(folds: Iterable[str]) -> dict[str, str]:
    """A number for every fold's name; the model of all sections keeps its own."""
    tested = sorted(fold for fold in folds if fold != ALL_SECTIONS)
    numbers = {fold: str(number) for number, fold in enumerate(tested, 1)}
    return numbers | {ALL_SECTIONS: ALL_SECTIONS}


def numbered(cards: Sequence[ModelCard], files: Iterable[str]) -> dict[str, str]:
    """Every name of a donor, patient, section and file, with what stands for it.

    A name of several kinds, such as a patient who is one section, is numbered under the first of these kinds.
    """
    kinds = {
        "donor": [name for card in cards for name in card.training_donors],
        "patient": [name for card in cards for name in card.training_patients],
        "section": [name for card in cards for name in card.training_slides],
        "file": files,
    }
    names: dict[str, str] = {}
    for kind, found in kinds.items():
        for number, name in enumerate(sorted({*found}), 1):
            names.setdefault(name, f"{kind}-{number}")
    return names


def without_names(card: ModelCard, named: Mapping[str, str], folds: Mapping[str, str]) -> ModelCard:
    """A card in which numbers stand for the names of sections, patients, donors and folds, in its notes as well."""
    return replace(
        card,
        fold=folds[card.fold],
        training_slides={named[name]: sha256 for name, sha256 in card.training_slides.items()},
        training_patients=tuple(named[name] for name in card.training_patients),
        training_donors=tuple(named[name] for name in card.training_donors),
        notes=tuple(with_numbers(note, named) for note in card.notes),
    )


def with_numbers(text: str, named: Mapping[str, str]) -> str:
    """A note with numbers for names; names that are numbers or one letter could be anything else in it, and stay."""
    telling = sorted((name for name in named if len(name) > 1 and not name.isdecimal()), key=len, reverse=True)
    if not telling:
        return text
    names = "|".join(map(re.escape, telling))
    return re.sub(rf"(?<!\w)(?:{names})(?!\w)", lambda match: named[match[0]], text)


def model_card(cards: Sequence[ModelCard], scores: Mapping[str, Any], named: Mapping[str, str], repository: str) -> str:
    """The README of the repository, from what the run knows."""
    first = cards[0]
    title = title_of(first.config.method, variant_of(first.config.method, first.config.network))
    licence = licence_of(first.encoder.name)
    counts = {
        kind: len({name for card in cards for name in getattr(card, f"training_{kind}")})
        for kind in ("slides", "patients", "donors")
    }
    dataset = first.made_by.get("dataset")
    notes = list(dict.fromkeys(with_numbers(note, named) for card in cards for note in card.notes))
    scale = [value for card in cards for value in card.um_per_px]
    lines = [
        "---",
        "library_name: genedml",
        "tags: [histology, spatial-transcriptomics, gene-expression]",
        "---",
        "",
        f"# {repository.split('/')[1]}",
        "",
        f"{title} for {len(first.genes)} genes, {console.count(len(cards), 'model')} of one "
        f"run; features of the frozen encoder `{first.encoder.name}` (licence: {licence}), whose weights are no part.",
        "",
        f"    genedml predict slide.svs --model hf://{repository} -o out.h5ad",
        "",
        "## Trained on",
        "",
        f"{console.count(counts['slides'], 'section')} of {console.count(counts['patients'], 'patient')} "
        f"({console.count(counts['donors'], 'donor')})" + (f", of the data set {dataset}." if dataset else "."),
        f"Slides of {min(scale):.3g} to {max(scale):.3g} um/px." if scale else "Their um/px is not on record.",
        f"Labels: {first.config.labels.describe()}",
        "",
        "## Scores",
        "",
        *_scores(scores),
        "",
        "## Limits",
        "",
        *(f"- {note}" for note in notes),
        "- Not for diagnosis or any decision about a patient. Of tissue, stains and scanners unlike those of the "
        "training nothing is known; predictions mark spots that are.",
        "- How much a gene is worth stands in `var` of every prediction; many are worth little.",
        f"- The encoder's licence ({licence}) and that of the data bind this model as far as they reach.",
        "",
    ]
    return "\n".join(lines)


def _scores(scores: Mapping[str, Any]) -> list[str]:
    """Mean and standard deviation over the run's folds, a row a method."""
    methods = scores.get("methods") or {}
    if not methods:
        return ["None are on record."]
    rows = [f"| | {' | '.join(SHOWN.values())} |", "|---" * (len(SHOWN) + 1) + "|"]
    for method, values in methods.items():
        cells = [_cell(values.get(key)) for key in SHOWN]
        rows.append(f"| {method} | {' | '.join(cells)} |")
    return ["Over the run's folds, each on sections that its model had not seen:", "", *rows]


def _cell(value: Mapping[str, float | None] | None) -> str:
    if not value or value.get("mean") is None:
        return "-"
    sd = value.get("sd")
    return f"{value['mean']:.3f}" + ("" if sd is None else f" ± {sd:.3f}")


def _upload(files: Sequence[Path], repository: str) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    api = HfApi()
    operations = [CommitOperationAdd(file.name, file) for file in files]
    try:
        page = str(api.create_repo(repository, private=True, exist_ok=True))
        api.create_commit(repository, operations, commit_message="A model of genedml")
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise GeneDMLError(
            f"Nothing was put into {repository}: {hub_reason(error)}. Log in with an account that may write there "
            "(hf auth login, or HF_TOKEN), with the hub in reach, and run the same command again."
        ) from error
    return page
