"""The notebook of the examples runs from its first cell to its last, in an empty folder."""

import json

import matplotlib
from conftest import EXAMPLES


def test_every_cell_of_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    notebook = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))
    values: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []  # results of one machine are not stored
            exec("".join(cell["source"]), values)
    assert values["data"].n_vars == 250
    for name in ("out.h5ad", "map.png", "out.report.html"):
        assert (tmp_path / name).stat().st_size > 5000
