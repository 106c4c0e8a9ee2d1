"""The trained models on this machine, as a table on the terminal."""

from collections.abc import Sequence

from genedml_cli import console
from genedml_cli.outputs.local_models import LocalModel


def show_models(models: Sequence[LocalModel]) -> None:
    """One row a model; what could not be read says why below."""
    rows = [
        [model.name, model.method, model.encoder, str(model.genes), str(model.folds), model.commit[:12] or "-"]
        for model in models
        if not model.problem
    ]
    console.table("Models: give a name as --model", ["name", "method", "encoder", "genes", "models", "commit"], rows)
    for model in models:
        if model.problem:
            console.warn(model.problem)
