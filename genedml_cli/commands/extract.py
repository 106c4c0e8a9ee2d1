"""genedml extract"""

from genedml_cli.commands import groups, options

EXAMPLES = (
    "genedml extract --samples sheet.csv --encoder stain-texture",
    "genedml extract --samples sheet.csv --method st-net --preset published",
)


def extract(
    given: groups.SectionOptions,
    machine: groups.ComputeOptions,
    method: options.MethodOption = None,
    shard: options.ShardOption = None,
) -> None:
    """Fill feature files alone, so that train finds them; of a method on raw pixels also its files of tiles."""
    from genedml_cli import console
    from genedml_cli.features.extraction import extract as extract_features
    from genedml_cli.machine.compute import all_deterministic
    from genedml_cli.machine.devices import prepare_encoder
    from genedml_cli.runs.planning import features_key

    chosen, _ = given.sections()
    chosen = chosen if shard is None else shard.take(chosen)
    key, allowed = features_key(given.configuration(method)), (given.allow_off_tissue, given.skip_off_image)
    with all_deterministic(machine.deterministic):
        loaded = prepare_encoder(key.encoder, given.weights, machine.compute)
        found = extract_features(chosen, loaded, key.views, given.features, key.flips, *allowed, tiles=key.tiles)
    tiles = f"{sum(len(section.tiles) for section in found.values())} tiles by {key.encoder}"
    raw = sum(len(pixels) for section in found.values() for pixels in section.raw)
    tiles += f", {raw} as raw pixels" if raw else ""
    console.say(f"{given.features}/: {console.count(len(found), 'section')}, {tiles}.")
