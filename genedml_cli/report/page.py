"""A run folder, a prediction or a model of the hub -> one HTML file that loads nothing from anywhere."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from markupsafe import Markup

from genedml.errors import GeneDMLError
from genedml_cli.figures.maps import SHARED_RULE
from genedml_cli.files.paths import takes_paths
from genedml_cli.files.provenance import maker, now
from genedml_cli.files.storage import beside, write_text
from genedml_cli.outputs.hub_models import is_hub_name, parse_name
from genedml_cli.report import curves
from genedml_cli.report.comparison_page import contents_of_runs
from genedml_cli.report.contents import Contents
from genedml_cli.report.images import gradients
from genedml_cli.report.model_page import contents_of_model
from genedml_cli.report.prediction_page import contents_of_prediction
from genedml_cli.report.run_page import contents_of_run
from genedml_cli.report.template import template

SEARCHED_FROM = 12  # rows; a shorter table is seen at once
SUFFIXES = (".html", ".htm")


@takes_paths
def report(
    target: Path | Sequence[Path], out: Path | None = None, *, genes: Sequence[str] = (), truth: Path | None = None
) -> Path:
    """Write the page of a run folder, of several beside each other, of an ``.h5ad`` that predict wrote, or of a model
    of the hub, ``hf://owner/name``, whose page says what its own files know.

    Args:
        target: which.
        genes: whose maps are shown first; those with the best and the worst scores if empty.
        truth: raw counts of the slide of an ``.h5ad``, which then stand beside the prediction.
        out: ``.html``; if None, ``report.html``, of several runs ``comparison.html`` in the first, as
            :func:`genedml_cli.files.storage.beside` says.

    Returns:
        Where it is.

    Raises:
        GeneDMLError: neither a run nor a prediction, unknown genes, counts that do not join, a model that cannot be had
            from the hub; nothing is written then.
    """
    first, *others = [target] if isinstance(target, Path) else list(target)
    out = _place(first, bool(others)) if out is None else out
    if out.suffix.lower() not in SUFFIXES:
        raise GeneDMLError(f"{out} must end with .html.")
    if any(map(is_hub_name, [first, *others])):
        contents = _contents_of_hub([first, *others], genes, truth)
    elif first.suffix == ".h5ad" and not others:
        contents = contents_of_prediction(first, genes, truth)
    elif truth is not None:
        raise GeneDMLError(f"--truth goes with one predicted .h5ad; {first} is a run, which holds its own truth.")
    elif others:
        contents = contents_of_runs([first, *others], genes)
    else:
        contents = contents_of_run(first, genes)
    write_text(out, render(contents))
    return out


def _place(first: Path, several: bool) -> Path:
    """Where a page goes if nothing is said; that of a model of the hub to where results of it go."""
    if is_hub_name(first):
        return Path("runs", parse_name(first)[0].replace("/", "--"), "report.html")
    return beside(first, "comparison.html" if several else "report.html")


def _contents_of_hub(targets: Sequence[Path], genes: Sequence[str], truth: Path | None) -> Contents:
    if len(targets) > 1 or genes or truth is not None:
        raise GeneDMLError(
            "A model of the hub comes without predictions and truth: report it alone, without --genes and --truth, or "
            "predict a slide with it and report that .h5ad."
        )
    return contents_of_model(targets[0])


def render(contents: Contents) -> str:
    """The page as HTML: every text of the contents is escaped, and only the page's own script may run."""
    folder = resources.files("genedml_cli.report")
    style, tables, atlas = ((folder / name).read_text("utf-8") for name in ("page.css", "page.js", "atlas.js"))
    script = tables + atlas
    html = template("page.html").render(
        page=contents,
        style=Markup(style),
        script=Markup(script),
        script_hash=_policy_hash(script),
        gradients=gradients(),
        scale_rule=SHARED_RULE,
        chart=curves,
        maker=maker() | {"time": now()},
        searched_from=SEARCHED_FROM,
    )
    # A file name may hold bytes that are no text.
    return html.encode("utf-8", "replace").decode("utf-8")


def _policy_hash(script: str) -> str:
    """By which a content security policy knows the one script that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
