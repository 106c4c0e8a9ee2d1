"""genedml extract"""

from pathlib import Path

from genedml_cli.commands import options

EXAMPLES = (
    "genedml extract --samples sheet.csv --encoder stain-texture",
    "genedml extract --dataset HER2ST --root her2st --encoder uni",
)


def extract(
    dataset: options.DatasetOption = None,
    samples: options.SamplesOption = None,
    root: options.RootOption = None,
    allow_partial: options.PartialOption = False,
    allow_off_tissue: options.OffTissueOption = False,
    skip_off_image: options.OffImageOption = False,
    um_per_px: options.ViewsUmPerPxOption = None,
    pitch_um: options.PitchOption = None,
    encoder: options.EncoderOption = None,
    weights: options.WeightsOption = None,
    preset: options.PresetOption = None,
    config: options.ConfigOption = None,
    set_: options.SetOption = None,
    neighbors: options.NeighborsOption = None,
    features: options.FeaturesOption = Path("features"),
    device: options.DeviceOption = options.Device.auto,
    compiled: options.CompileOption = False,
    batch_tiles: options.BatchTilesOption = None,
    deterministic: options.DeterministicOption = False,
) -> None:
    """Fill feature files alone, so that train finds them."""
    from genedml_cli import console
    from genedml_cli.commands import choices
    from genedml_cli.features.extraction import extract as extract_features
    from genedml_cli.machine.compute import Compute
    from genedml_cli.machine.devices import all_deterministic, prepare_encoder

    scale = choices.known_scale(um_per_px)
    chosen, _ = choices.choose_samples(dataset, samples, root, allow_partial, scale, pitch_um)
    named = choices.only_dataset(dataset)
    overrides = choices.to_overrides(set_, um_per_px=um_per_px, neighbors=neighbors)
    merged = choices.choose_config(named, encoder, preset, config, overrides)
    compute = Compute(device, compiled, batch_tiles, deterministic)
    with all_deterministic(compute.deterministic):
        loaded = prepare_encoder(merged.encoder, weights, compute)
        found = extract_features(
            chosen, loaded, merged.views, features, merged.training.augment, allow_off_tissue, skip_off_image
        )
    tiles = sum(len(section.tiles) for section in found.values())
    console.say(f"{features}/: {console.count(len(found), 'section')}, {tiles} tiles by {merged.encoder}.")
