"""Values as every reader of JSON takes them."""

import math
from typing import Any


def without_nan(value: Any) -> Any:
    """The same with null where JSON has no word: for NaN and infinite numbers, however deep they stand."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return value


def with_nan(values: Any) -> Any:
    """Numbers of a list that :func:`without_nan` made, NaN where they are null."""
    return [math.nan if value is None else value for value in values] if isinstance(values, list) else values
