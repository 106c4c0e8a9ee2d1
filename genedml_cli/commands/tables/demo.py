"""The demo as a terminal shows it."""

from genedml_cli import console
from genedml_cli.commands.tables.scores import show_evaluation
from genedml_cli.demo import DemoResult


def show_demo(result: DemoResult) -> None:
    """The scores of the held-out slide, where everything is, and what to type next."""
    show_evaluation(result.evaluation, "")
    console.say(f"Planted genes: mean PCC {result.planted_pcc:.2f}. Genes of pure noise: {result.noise_pcc:.2f}.\n")
    console.say(f"Picture     {result.picture}")
    console.say(f"Prediction  {result.prediction}   (scanpy.read_h5ad opens it)")
    console.say(f"Model       {result.folder / 'run'}\n")
    console.say(
        "Next, your own slide and spots (the demo's model knows only the demo's genes; train one on your data):"
    )
    console.say("  genedml train --samples SHEET.csv --target pearson --encoder stain-texture --out runs/mine")
    console.say("  genedml predict SLIDE --spots SPOTS.csv --model runs/mine -o out.h5ad")
