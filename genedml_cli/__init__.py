"""genedml: predict spatial gene expression from H&E slides with Gene-DML.

    from genedml_cli import evaluate, predict, report, train

Each is imported, with torch and what else it needs, when it is first asked for. The other commands are functions, too:
``features.extraction.extract``, ``report.pictures.plot``, ``outputs.formats.export``, ``runs.ablation.ablate``,
``cohort.cohort.predict_cohort``, ``demo.run_demo``. All take paths as text.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genedml_cli.evaluation.evaluation import evaluate
    from genedml_cli.prediction.prediction import predict
    from genedml_cli.report.page import report
    from genedml_cli.runs.run import train

__version__ = version("genedml")
__all__ = ["evaluate", "predict", "report", "train"]
_HOMES = {"evaluate": "evaluation.evaluation", "predict": "prediction.prediction", "train": "runs.run"}


def __getattr__(name: str) -> Any:
    """The public functions, imported when they are first asked for; ``report`` is its package, which can be called."""
    if name == "report":
        return import_module("genedml_cli.report")
    if name in _HOMES:
        return getattr(import_module(f"genedml_cli.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
