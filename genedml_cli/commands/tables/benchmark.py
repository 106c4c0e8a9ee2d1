"""What a benchmark measured, as a table on the terminal."""

from genedml_cli import console
from genedml_cli.benchmark.benchmark import Benchmark
from genedml_cli.text import gigabytes

NOT_MEASURED = "not measured"


def show_benchmark(result: Benchmark) -> None:
    """A row a part, then memory, then what must be said."""
    machine, parts = result.machine, result.parts
    device = "no GPU" if machine["device"] == "cpu" else machine["device"]
    title = f"{machine['cpu']}, {machine['cores']} cores, {device}, torch {machine['torch']}; {result.section}"
    share = "" if result.encoder_over_matrix is None else f"{result.encoder_over_matrix:.2f} of the matrix product"
    megapixels = f"{result.decoded_megapixels / parts['reading'].seconds:.1f} Mpx/s"
    step_s = parts["training"].seconds / result.training_steps
    alone = f"{result.extraction_over_encoder:.2f} of the encoder alone"
    details = {
        "reading": f"{result.neighbors}, {megapixels}",
        "encoder alone": share,
        "extraction": f"{alone}, {result.passes_a_spot:.2f} tiles a spot",
        "prediction": "slide to file",
        "training": f"{step_s:.3f} s a step of {parts['training'].count / result.training_steps:.0f} spots",
    }
    rows = [["matrix product", f"{result.matrix_tflops:.2f} TFLOP/s", "", ""]]
    rows += [
        [name, f"{part.rate:.1f} {part.unit}/s", f"{part.seconds:.1f} s ({part.cpu_seconds:.1f})", details[name]]
        for name, part in parts.items()
    ]
    for place in ("host", "device"):
        size = result.peak_bytes[place]
        rows.append([f"peak memory, {place}", NOT_MEASURED if size is None else gigabytes(size), "", ""])
    console.table(f"{title}; {result.encoder}", ["", "speed", "took (of processors)", ""], rows)
    if machine["load_before"] > machine["cores"] / 2:
        console.say(
            f"Other programs were at work (load {machine['load_before']:g} on {machine['cores']} cores): trust no "
            "speed, only processor time."
        )
