"""What a benchmark measured, as tables on the terminal."""

from genedml_cli import console
from genedml_cli.benchmark import Benchmark
from genedml_cli.machine import Timing

NOT_MEASURED = "not measured"
FLIPS = 7
GIGABYTE = 1e9


def show_benchmark(result: Benchmark) -> None:
    """The parts, then the time to expect, then what must be said."""
    machine = result.machine
    where = "no GPU" if machine["device"] == "cpu" else machine["device"]
    title = f"{machine['cpu']}, {machine['cores']} cores, {where}, torch {machine['torch']}; {result.section}"
    console.table(f"{title}; {result.encoder}", ["", "speed", "what of", "over the plain way"], _parts(result))
    rate = {mode: part.tiles_per_s for mode, part in result.extraction.items()}
    rows = [
        [
            f"{work.name}, {work.spots} spots",
            *(_duration(work.spots * work.passes[mode] / rate[mode]) for mode in ("exact", "lattice")),
            _duration(work.spots * FLIPS / rate["exact"]),
        ]
        for work in result.workloads
    ]
    console.table("Extraction to expect", ["", "exact", "lattice", "flips for training add"], rows)
    for line in _notes(result):
        console.say(line)


def _parts(result: Benchmark) -> list[list[str]]:
    decoding, training, prediction = result.decoding, result.training, result.prediction
    alone = result.encoder_tiles_per_s
    rows = [
        [
            f"decoding, {result.mode}",
            f"{decoding.megapixels / decoding.took.wall_s:.1f} Mpx/s",
            f"{decoding.decoded_over_needed:.2f} of the pixels needed",
            _ratio(decoding.plain, decoding.took),
        ],
        ["encoder alone", f"{alone:.0f} tiles/s", _share(result.encoder_share, "of a matrix product"), ""],
    ]
    for mode, part in result.extraction.items():
        share = _share(part.tiles_per_s / alone, "of the encoder alone")
        rows.append(
            [f"extraction, {mode}", f"{part.tiles_per_s:.0f} tiles/s", share, _ratio(result.plain_a_spot, part.a_spot)]
        )
        rows.append(["", f"{1 / part.a_spot.wall_s:.1f} spots/s", f"{part.passes:.2f} passes a spot", ""])
    few = "1 section" if training.sections_per_batch == 1 else f"{training.sections_per_batch} sections"
    speedup = training.spots_per_s / training.shuffled_spots_per_s
    rows += [
        [f"training, {few} a batch", f"{training.spots_per_s:.0f} spots/s", f"batch {training.batch_size}", ""],
        ["training, shuffled", f"{training.shuffled_spots_per_s:.0f} spots/s", f"{speedup:.1f}x slower", ""],
        [
            f"prediction, {result.mode}",
            f"{prediction.spots / prediction.took.wall_s:.1f} spots/s",
            f"{(prediction.peak_bytes['host'] or 0) / GIGABYTE:.1f} GB of memory",
            "",
        ],
        ["genedml --help", f"{result.start_s[0]:.2f} s", f"{result.start_s[0] / result.start_s[1]:.2f} of Typer's", ""],
        ["GPU: encoder, memory", *_gpu(result), ""],
    ]
    return rows


def _gpu(result: Benchmark) -> list[str]:
    held = result.prediction.peak_bytes["device"]
    if held is None:
        return [NOT_MEASURED, NOT_MEASURED]
    return [f"{result.encoder_tiles_per_s:.0f} tiles/s", f"{held / GIGABYTE:.1f} GB of its memory"]


def _notes(result: Benchmark) -> list[str]:
    load, cores = result.machine["load_before"], result.machine["cores"]
    notes = ["Ratios in brackets are of processor time, which other programs on the machine change less."]
    if result.plain_a_spot is None:
        notes = ["With --against naive, one region read a spot and 26 passes are measured beside it."]
    if load > cores / 2:
        notes.append(f"Other programs were at work (load {load:g} on {cores} cores): trust ratios, not speeds.")
    return notes


def _ratio(plain: Timing | None, fast: Timing) -> str:
    if plain is None:
        return ""
    return f"{plain.wall_s / fast.wall_s:.1f}x ({plain.cpu_s / fast.cpu_s:.1f}x)"


def _share(share: float | None, of: str) -> str:
    return "" if share is None else f"{share:.2f} {of}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
