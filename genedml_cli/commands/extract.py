"""genedml extract"""

from genedml_cli.commands import groups, options

EXAMPLES = (
    "genedml extract --samples sheet.csv --encoder stain-texture",
    "genedml extract --dataset HER2ST --root her2st --encoder uni",
)


def extract(given: groups.SectionOptions, machine: groups.ComputeOptions, shard: options.ShardOption = None) -> None:
    """Fill feature files alone, so that train finds them."""
    from genedml_cli import console
    from genedml_cli.features.extraction import extract as extract_features
    from genedml_cli.machine.devices import all_deterministic, prepare_encoder

    chosen, _ = given.sections()
    chosen = chosen if shard is None else shard.take(chosen)
    config, allowed = given.configuration(), (given.allow_off_tissue, given.skip_off_image)
    with all_deterministic(machine.deterministic):
        loaded = prepare_encoder(config.encoder, given.weights, machine.compute)
        found = extract_features(chosen, loaded, config.views, given.features, config.training.augment, *allowed)
    tiles = sum(len(section.tiles) for section in found.values())
    console.say(f"{given.features}/: {console.count(len(found), 'section')}, {tiles} tiles by {config.encoder}.")
