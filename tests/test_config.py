"""Configuration: strict, merged in one order, written and read again."""

from dataclasses import replace

import pytest
import tomli_w

from genedml.config import Config, LabelsConfig, TrainingConfig, load_config, preset_names
from genedml.errors import GeneDMLError
from genedml.schema import to_dict
from genedml_cli.commands.choices import choose_config, to_overrides


def test_later_sources_win(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text("[training]\nepochs = 7\nbatch_size = 9\n")
    config = load_config("HER2ST", file, ["training.batch_size=5"])
    assert (config.network.loss.groups, config.training.epochs, config.training.batch_size) == (18, 7, 5)
    assert config.training.patience == TrainingConfig().patience


def test_part_of_a_table_keeps_the_rest():
    config = load_config("HER2ST", overrides=["network.fusion_transformer.heads=2"])
    assert config.network.fusion_transformer == replace(Config().network.fusion_transformer, heads=2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.epcohs=3",
            "Unknown key training.epcohs. Did you mean training.epochs? Known here: epochs, patience",
        ),
        ("trainig.epochs=3", "Unknown key trainig. Did you mean training? Known here: method, encoder"),
        ("colour=3", "Unknown key colour. Known here: method, encoder"),
        (
            "epochs=3",
            "Unknown key epochs. Did you mean training.epochs? Known here: method, encoder",
        ),
        ("network.fusion_transformer.hads=2", "Known here: depth, heads, mlp_width, dropout"),
        ("training.epochs=0", "training.epochs = 0"),
        ("training.epochs=many", "training.epochs = 'many'"),
        ("training.select_on=luck", "training.select_on = 'luck'"),
        ("views.neighbor_grid=4", "must be odd"),
        ("views.um_per_px=0", "views.um_per_px = 0: give a number above 0, or native."),
        ("views.um_per_px=coarse", "give a number above 0, or native"),
        ("labels=3", "labels = 3"),
        ("training.epochs", "takes key=value"),
    ],
)
def test_a_wrong_setting_is_named(override, message):
    with pytest.raises(GeneDMLError) as caught:
        load_config("small", overrides=[override])
    assert message in str(caught.value)


def test_unreadable_toml_and_unknown_presets_are_named(tmp_path):
    (tmp_path / "bad.toml").write_text("[training\n")
    with pytest.raises(GeneDMLError, match=r"bad\.toml cannot be read as TOML"):
        load_config(file=tmp_path / "bad.toml")
    with pytest.raises(GeneDMLError, match="There are: HER2ST, STNet, skinST, small"):
        load_config("big")


@pytest.mark.parametrize("preset", preset_names())
def test_a_merged_configuration_is_read_again_as_it_was(preset, tmp_path):
    config = load_config(preset)
    (tmp_path / "config.toml").write_text(tomli_w.dumps(to_dict(config)))
    assert load_config(file=tmp_path / "config.toml") == config


def test_the_preset_follows_encoder_and_data_set():
    chosen = [
        choose_config(dataset, encoder, None, None)
        for dataset, encoder in [(None, "stain-texture"), ("skinST", None), ("skinST", "stain-texture"), (None, "uni")]
    ]
    assert [(c.encoder, c.network.loss.groups) for c in chosen][1::2] == [("uni", 25), ("uni", 18)]
    assert chosen[0] == chosen[2] == load_config("small")


def test_options_win_over_set():
    assert choose_config(None, "uni2-h", "HER2ST", None, ["encoder=uni"]).encoder == "uni2-h"
    assert choose_config(None, None, "HER2ST", None, to_overrides(["training.seed=4"], seed=5)).training.seed == 5


def test_the_label_transform_describes_itself():
    assert LabelsConfig().describe() == "log10(1 + 10000 * count / sum over the panel), mean over array neighbours"
    assert (
        LabelsConfig(library="all", log_base="e", smooth=False).describe()
        == "ln(1 + 10000 * count / sum over all genes)"
    )
