"""The zoo's page says what the code says; a model's file that cannot be used says what next."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from genedml.checkpoint import (
    FORMAT_VERSION,
    METADATA_KEY,
    EncoderRecord,
    ModelCard,
    checkpoint_bytes,
    load_card,
    sealed,
)
from genedml.config import DEFAULT_METHOD, load_config, preset_names
from genedml.encoders.table import ENCODERS
from genedml.errors import GeneDMLError
from genedml.networks.network import Shape
from genedml.networks.registry import NETWORKS, build
from genedml_cli.evaluation.published import CROSS_VALIDATION, published_rows

PAGE = (Path(__file__).parents[1] / "models" / "README.md").read_text(encoding="utf-8")


def rows_below(heading: str) -> list[list[str]]:
    """The cells of the table whose heading starts so."""
    lines = PAGE[PAGE.index(f"\n| {heading} |") :].strip().splitlines()[2:]
    table = lines[: next((number for number, line in enumerate(lines) if not line.startswith("|")), None)]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]


def test_every_preset_has_a_row_with_its_encoder_genes_size_and_licence():
    rows = {row[0]: row for row in rows_below("preset | for which data")}
    assert sorted(rows) == preset_names()
    for name, (_, _, encoder, genes, size, _, licence) in rows.items():
        config = load_config(name)
        info = ENCODERS[config.encoder]
        with torch.device("meta"):
            shape = Shape(config.labels.panel_size, info.width, info.tokens, config.views.neighbor_grid)
            network = build(config.method, config.network, shape)
        millions = sum(value.numel() for value in network.parameters()) / 1e6
        assert (encoder, genes, licence) == (config.encoder, str(config.labels.panel_size), info.licence)
        assert size == f"{millions:.1f} M" if millions > 1 else size == f"{millions:.2f} M"


def test_the_presets_of_every_other_method_are_listed():
    listed = {
        method: sorted(name.strip(" `") for name in presets.split(","))
        for methods, presets, _ in rows_below("method | presets")
        for method in (name.strip(" `") for name in methods.split(","))
    }
    assert listed == {method: preset_names(method) for method in NETWORKS if method != DEFAULT_METHOD}


def test_the_papers_scores_are_the_tables():
    rows = rows_below("preset | MSE")
    assert len(rows) == 3
    for name, *cells in rows:
        paper = next(row for row in published_rows(CROSS_VALIDATION, name) if row.method == "Gene-DML")
        assert cells == [f"{paper.mean[key]:.3f} ± {paper.sd[key]:.2f}" for key in ("mse", "pcc_a", "pcc_h")]


def test_every_field_of_a_card_is_explained():
    named = [name.strip("` ") for row in rows_below("field | what it holds") for name in row[0].split(",")]
    assert sorted(named) == sorted(field.name for field in fields(ModelCard))


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (None, r"not a model of genedml\. Give a file that train wrote"),
        (
            {"format_version": FORMAT_VERSION + 1},
            rf"it has format {FORMAT_VERSION + 1}, not {FORMAT_VERSION}\. Use the version of genedml that wrote it",
        ),
        ({"format_version": FORMAT_VERSION}, r"cannot read: it lacks \w+\. Use the version .* or train the fold again"),
    ],
)
def test_a_card_that_cannot_be_used_says_what_next(tmp_path, card, message):
    metadata = None if card is None else sealed(METADATA_KEY, json.dumps(card))
    save_file({"weight": torch.zeros(1)}, tmp_path / "fold-1.safetensors", metadata)
    with pytest.raises(GeneDMLError, match=message):
        load_card(tmp_path / "fold-1.safetensors")


def test_a_card_may_lack_ids_but_not_have_some(tmp_path):
    card = ModelCard(
        load_config("small"),
        Shape(2, 8, 5, 5),
        ("A", "B"),
        EncoderRecord("tiny", 8, 5, ""),
        "1",
        (0.0, 0.0),
        ((0.0,) * 2,) * 2,
        {},
        (),
        (),
        scores={"held_out_pcc": []},
    )
    written = json.loads(safe_metadata(tmp_path, card))
    del written["gene_ids"]
    save_file({"w": torch.zeros(1)}, tmp_path / "before.safetensors", sealed(METADATA_KEY, json.dumps(written)))
    assert load_card(tmp_path / "before.safetensors") == card
    safe_metadata(tmp_path, replace(card, gene_ids=("ENSG1",)))
    with pytest.raises(GeneDMLError, match="it has 1 ids for 2 genes"):
        load_card(tmp_path / "fold-1.safetensors")


def safe_metadata(folder: Path, card: ModelCard) -> str:
    """Write a model of no weights; its card as JSON."""
    (folder / "fold-1.safetensors").write_bytes(checkpoint_bytes(card, {"w": torch.zeros(1)}))
    with safe_open(folder / "fold-1.safetensors", "pt") as stored:
        return stored.metadata()[METADATA_KEY]


def test_a_broken_model_says_what_next(tmp_path):
    (tmp_path / "fold-1.safetensors").write_bytes(b"cut")
    with pytest.raises(GeneDMLError, match=r"cannot be read: .*\. Copy it again, or train the fold again\."):
        load_card(tmp_path / "fold-1.safetensors")
