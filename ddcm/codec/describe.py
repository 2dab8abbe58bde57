"""What a ``.ddcm`` file is, for ``ddcm inspect``. Loads neither torch nor a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ddcm.codec.format import VERSION, read, unpack
from ddcm.codec.header import validate
from ddcm.errors import UserError


def describe(path: Path) -> dict[str, Any]:
    """Facts by name: header, rate, schedule. Raises UserError: the file cannot be read or is damaged."""
    try:
        data = read(path)
        header, payload = unpack(data)
        validate(header, payload)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    facts = {"what": "ddcm file", "version": VERSION, "bytes": len(data), "seconds": f"{header.seconds:g}"}
    facts["kbps"] = f"{len(data) / 125 / header.seconds:.3f}"
    facts |= {name: value for name, value in asdict(header).items() if name != "schedule"}
    facts |= {"windows": len(header.layout.starts), "window frames": header.layout.size, "payload bytes": len(payload)}
    if header.schedule is not None:
        timesteps = header.steps.timesteps
        is_guided = header.prompt != "" and header.guidance != 256
        facts["timesteps"] = " ".join(map(str, timesteps))
        facts["atoms of each step"] = " ".join(map(str, header.steps.atoms))
        facts["UNet calls of a window"] = len(timesteps) * (2 if is_guided else 1)
        facts["bits of a window"] = header.window_bits
    return facts
