"""genedml doctor"""

from genedml_cli.commands import options

EXAMPLES = ("genedml doctor", "genedml doctor --json")


def doctor(json_: options.JsonOption = False) -> None:
    """Look at this machine: Python, torch, GPU, OpenSlide, encoders, hub login, memory, disk; say how to fix it."""
    from genedml_cli import console
    from genedml_cli import doctor as examination

    findings = examination.examine()
    if json_:
        console.document([finding.to_dict() for finding in findings])
    else:
        examination.show(findings)
    examination.refuse_broken(findings)
