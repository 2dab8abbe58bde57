"""What a ``.ddcm`` file says of itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ddcm.codec.format import VERSION, read, unpack
from ddcm.codec.layout import verified, window_bits
from ddcm.codec.schedule import expand
from ddcm.errors import UserError


def describe(path: Path) -> dict[str, Any]:
    """Facts to print: header, rate, schedule. Loads neither torch nor a model.

    Raises:
        UserError: the file cannot be read or is damaged.
    """
    try:
        stream = unpack(read(path))
        placed = verified(stream)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    size, seconds = path.stat().st_size, stream.samples / stream.mel[0]
    facts = {"what": "ddcm file", "version": VERSION, "bytes": size, "seconds": f"{seconds:g}"}
    facts["kbps"] = f"{size / 125 / seconds:.3f}"
    facts |= {key: value for key, value in asdict(stream).items() if key not in ("payload", "schedule")}
    facts |= {"windows": len(placed.starts), "window frames": placed.size, "payload bytes": len(stream.payload)}
    if stream.schedule is not None:
        explicit = expand(stream.schedule)
        facts["timesteps"] = " ".join(map(str, explicit.timesteps))
        facts["atoms of each step"] = " ".join(map(str, explicit.atoms))
        facts["UNet calls of a window"] = len(explicit.timesteps) * (
            2 if stream.prompt and stream.guidance != 256 else 1
        )
        facts["bits of a window"] = window_bits(stream)
    return facts
