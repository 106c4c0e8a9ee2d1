"""A slide in DICOM: a tiled file for each level, with no more in it than a reader needs."""

import itertools
import struct
from io import BytesIO
from pathlib import Path

from PIL import Image

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
UNCOMPRESSED, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
NUMBERS = {"US": "<H", "UL": "<I", "FD": "<d"}
LONG = ("OB", "SQ")
"""Kinds of values whose length takes four bytes."""
ITEM, END = 0xE000, 0xE0DD
UNKNOWN_LENGTH = 0xFFFFFFFF


def element(tag: int, kind: str, *values: str | float | bytes) -> bytes:
    """One data element: group and number, kind, length, values; those of a sequence are its items."""
    if kind in NUMBERS:
        content = b"".join(struct.pack(NUMBERS[kind], value) for value in values)
    elif kind == "SQ":
        content = b"".join(map(item, values))
    elif kind == "OB":
        content = b"".join(values)
    else:
        content = "\\".join(map(str, values)).encode()
    content += (b"\0" if kind in ("OB", "UI") else b" ") * (len(content) % 2)
    length = struct.pack("<HI", 0, len(content)) if kind in LONG else struct.pack("<H", len(content))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind.encode() + length + content


def item(content: bytes, kind: int = ITEM) -> bytes:
    """One item of a sequence, or of compressed pixels."""
    content += b"\0" * (len(content) % 2)
    return struct.pack("<HHI", 0xFFFE, kind, len(content)) + content


def pixel_data(tiles: list[Image.Image], jpeg: bool) -> bytes:
    """The element of all pixels."""
    if not jpeg:
        return element(0x7FE00010, "OB", *(tile.tobytes() for tile in tiles))
    files = [BytesIO() for _ in tiles]
    for tile, file in zip(tiles, files, strict=True):
        tile.save(file, "JPEG", quality=95)
    head = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, UNKNOWN_LENGTH)
    return head + item(b"") + b"".join(item(file.getvalue()) for file in files) + item(b"", END)


def write_dicom(path: Path, level: Image.Image, um_per_px: float, number: int = 0, jpeg: bool = False) -> Path:
    """Level ``number`` of a slide, in tiles that follow each other row by row (TILED_FULL), white beyond its edges."""
    tile_px = 256
    columns, rows = (-(-side // tile_px) for side in level.size)
    canvas = Image.new("RGB", (columns * tile_px, rows * tile_px), "white")
    canvas.paste(level)
    boxes = [(x * tile_px, y * tile_px) for y, x in itertools.product(range(rows), range(columns))]
    tiles = [canvas.crop((x, y, x + tile_px, y + tile_px)) for x, y in boxes]
    name = f"1.2.3.{number + 1}"
    measures = element(0x00280030, "DS", *[f"{um_per_px / 1000:.10g}"] * 2)
    kind = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE") if number == 0 else ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")
    content = (
        element(0x00080008, "CS", *kind),
        element(0x00080016, "UI", WHOLE_SLIDE),
        element(0x00080018, "UI", name),
        element(0x00080060, "CS", "SM"),
        element(0x0020000D, "UI", "1.2.4"),
        element(0x0020000E, "UI", "1.2.5"),
        element(0x00209311, "CS", "TILED_FULL"),
        element(0x00280002, "US", 3),
        element(0x00280004, "CS", "YBR_FULL_422" if jpeg else "RGB"),
        element(0x00280006, "US", 0),
        element(0x00280008, "IS", len(tiles)),
        element(0x00280010, "US", tile_px),
        element(0x00280011, "US", tile_px),
        element(0x00280100, "US", 8),
        element(0x00280101, "US", 8),
        element(0x00280102, "US", 7),
        element(0x00280103, "US", 0),
        element(0x00480006, "UL", level.width),
        element(0x00480007, "UL", level.height),
        element(0x00480302, "UL", 1),
        element(0x00480303, "UL", 1),
        element(0x52009229, "SQ", element(0x00289110, "SQ", measures)),
        pixel_data(tiles, jpeg),
    )
    about = element(0x00020001, "OB", b"\0\1") + element(0x00020002, "UI", WHOLE_SLIDE)
    about += element(0x00020003, "UI", name) + element(0x00020010, "UI", JPEG if jpeg else UNCOMPRESSED)
    path.write_bytes(bytes(128) + b"DICM" + element(0x00020000, "UL", len(about)) + about + b"".join(content))
    return path
