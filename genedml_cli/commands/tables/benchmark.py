"""What a benchmark measured, as tables on the terminal."""

from genedml_cli import console
from genedml_cli.benchmark.benchmark import Benchmark
from genedml_cli.benchmark.training_speed import TrainingSpeed
from genedml_cli.machine.stopwatch import Timing

NOT_MEASURED = "not measured"
FLIPS = 7
GIGABYTE = 1e9


def show_benchmark(result: Benchmark) -> None:
    """The parts, then the time to expect, then what must be said."""
    machine = result.machine
    where = "no GPU" if machine["device"] == "cpu" else machine["device"]
    title = f"{machine['cpu']}, {machine['cores']} cores, {where}, torch {machine['torch']}; {result.section}"
    console.table(f"{title}; {result.encoder}", ["", "speed", "details", "faster than naive"], _parts(result))
    rate = {mode: part.tiles_per_s for mode, part in result.extraction.items()}
    rows = [
        [
            f"{work.name}, {work.spots} spots",
            *(_duration(work.spots * work.passes[mode] / rate[mode]) for mode in ("exact", "lattice")),
            _duration(work.spots * FLIPS / rate["exact"]),
        ]
        for work in result.workloads
    ]
    console.table(
        "Extraction to expect, nearly all of predict",
        ["", "exact", "lattice", "flips for training"],
        rows,
    )
    for line in _notes(result):
        console.say(line)


def _parts(result: Benchmark) -> list[list[str]]:
    decoding, training, prediction = result.decoding, result.training, result.prediction
    megapixels = decoding.megapixels / decoding.took.wall_s
    share = "" if result.encoder_share is None else f"{result.encoder_share:.2f} of a matrix product"
    rows = [
        [
            f"decoding, {result.mode}",
            f"{decoding.tiles_per_s:.1f} tiles/s",
            f"{megapixels:.1f} Mpx/s, {decoding.decoded_over_needed:.2f} of the pixels needed",
            _ratio(decoding.plain, decoding.took),
        ],
        ["encoder alone", f"{result.encoder_tiles_per_s:.1f} tiles/s", share, ""],
    ]
    for mode, part in result.extraction.items():
        of_alone = f"{_ratio(part.alone, part.took, digits=2)} of the encoder alone"
        faster = _ratio(result.plain_a_spot, part.a_spot)
        rows.append([f"extraction, {mode}", f"{part.tiles_per_s:.1f} tiles/s", of_alone, ""])
        rows.append(["", f"{1 / part.a_spot.wall_s:.1f} spots/s", f"{part.passes:.2f} passes a spot", faster])
    rows += _training(training, result.machine["device"])
    rows += [
        [
            f"prediction of {prediction.spots} spots, {result.mode}",
            f"{prediction.spots / prediction.took.wall_s:.1f} spots/s",
            f"{(prediction.peak_bytes['host'] or 0) / GIGABYTE:.1f} GB at most so far",
            "",
        ],
        [
            "genedml --help",
            f"{result.start.wall_s:.2f} s",
            f"{_ratio(result.start, result.typer_start, digits=2)} of a small Typer app",
            "",
        ],
        ["GPU: encoder, memory", *_gpu(result), ""],
    ]
    return rows


def _training(speed: TrainingSpeed, device: str) -> list[list[str]]:
    few = "1 section" if speed.sections_per_batch == 1 else f"{speed.sections_per_batch} sections"
    plain = None if speed.plain is None else speed.plain.a_spot
    where = "in gathering" if device == "cpu" else "outside the device"
    rows = [
        [
            f"training, {drawn}",
            f"{steps.spots_per_s:.0f} spots/s",
            f"{steps.waited_share:.0%} of its time {where}",
            _ratio(plain, steps.a_spot),
        ]
        for drawn, steps in ((f"{few} a batch", speed.few), (f"shuffled, batch {speed.batch_size}", speed.shuffled))
    ]
    rows.append(["", "", f"{few} over shuffled {_ratio(speed.shuffled.a_spot, speed.few.a_spot)}", ""])
    return rows


def _gpu(result: Benchmark) -> list[str]:
    held = result.prediction.peak_bytes["device"]
    if held is None:
        return [NOT_MEASURED, NOT_MEASURED]
    return [f"{result.encoder_tiles_per_s:.0f} tiles/s", f"{held / GIGABYTE:.1f} GB of its memory"]


def _notes(result: Benchmark) -> list[str]:
    load, cores = result.machine["load_before"], result.machine["cores"]
    slower = "the encoder" if result.encoder_tiles_per_s < result.decoding.tiles_per_s else "reading"
    notes = [
        f"Of reading and encoding alone, {slower} is the slower here.",
        "Ratios are of the time by the clock and, in brackets, of processor time.",
    ]
    if result.plain_a_spot is None:
        notes.append("With --against naive, one region read a spot and 26 passes are measured beside it.")
    if load > cores / 2:
        notes.append(
            f"Other programs were at work (load {load:g} on {cores} cores): trust only the ratios in brackets, no "
            "speed and no time."
        )
    return notes


def _ratio(over: Timing | None, under: Timing, digits: int = 1) -> str:
    """By the clock and, in brackets, of processor time."""
    if over is None:
        return ""
    return f"{over.wall_s / under.wall_s:.{digits}f}x ({over.cpu_s / under.cpu_s:.{digits}f}x)"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
