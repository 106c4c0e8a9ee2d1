"""Who made a file, and when."""

import re
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

from genedml_cli import __version__
from genedml_cli.text import masked

VERSION = {"genedml": __version__}
"""What a file says of its maker where the same files can come of different commands."""


BY_WHOM = re.compile(r" --(on|shard)[= ]\S+")
"""Options of a command that say who does the work; results do not depend on it."""


def maker() -> dict[str, str]:
    """Version and command line: the part of an output's provenance that outputs of a command share.

    No time, so that the same command gives the same bytes.
    """
    return {**VERSION, "command": command_line()}


def command_line() -> str:
    """The command line of this process, without secrets, and without those options that say who does the work."""
    return BY_WHOM.sub("", masked(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])))


def now() -> str:
    """The time, for records of what happened rather than of what was found."""
    return datetime.now(UTC).isoformat(timespec="seconds")
