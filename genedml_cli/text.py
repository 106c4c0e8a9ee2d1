"""What never stands on a terminal or in a file: tokens, passwords in addresses, and characters that steer."""

import json
import os
import re
from typing import Any

from genedml.errors import CONTROL
from genedml.strict_json import without_nan

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
MASK = "***"
_TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{8,}")
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_SIGNATURE = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")


def masked(text: str) -> str:
    """The text without tokens of the hub, passwords in addresses and the signatures of signed addresses."""
    for variable in TOKEN_VARIABLES:
        token = os.environ.get(variable, "")
        if len(token) >= 8:
            text = text.replace(token, MASK)
    return _SIGNATURE.sub(rf"\1?{MASK}", _PASSWORD.sub(MASK, _TOKEN.sub(MASK, text)))


def shown(text: str) -> str:
    """The text as a terminal may have it: masked, and nothing but line ends and tabs among its control characters."""
    return CONTROL.sub(lambda found: found[0] if found[0] in "\n\t" else "?", masked(text))


def json_text(value: Any) -> str:
    """Readable JSON; NaN becomes null, a path its text."""
    return json.dumps(without_nan(value), indent=2, default=os.fspath) + "\n"


def gigabytes(size_bytes: int) -> str:
    """A size as people read it."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e7 else f"{size_bytes / 1e6:.2f} MB"
