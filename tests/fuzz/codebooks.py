"""Damage inside the containers of a codebook, which would refuse damage of any other kind at once."""

import io
import json
import random
import zipfile
from typing import Any

from tests.fuzz.mutate import damaged

VALUES: tuple[Any, ...] = (
    0, -1, 1, 2, 1 << 16, 1 << 31, 1 << 40, 10**30, 0.5, 1e308, float("nan"), float("inf"), True, None, "", "x", "1024",
    "\n", "\ud800", [], [1], {}, {"class": "HardQuantizer", "config": {}}, {"class": ["a"], "config": 3},
    {"class": "ResidualQuantizer", "config": {"levels": 1 << 30}}, {"class": "ProjectedQuantizer", "config": {}},
    "os.system", "gradient", "ema", "rotation", "cosine",
)  # fmt: skip


def json_damaged(rng: random.Random, text: bytes) -> bytes:
    """Another value, a value more or one less, somewhere in a JSON document; or its bytes."""
    try:
        document = json.loads(text)
    except ValueError:
        return damaged(rng, text, text)
    holder, key, node = None, None, document
    while isinstance(node, dict | list) and node and (holder is None or rng.random() < 0.7):
        holder, key = node, rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = holder[key]
    if holder is None:
        return damaged(rng, text, text)
    if rng.random() < 0.1:
        del holder[key]
    elif rng.random() < 0.1 and isinstance(holder, dict):
        holder[str(rng.choice(VALUES))] = node
    elif rng.random() < 0.03:
        return json.dumps(document).encode().replace(b"{", b"{" * rng.choice((2, 10, 5000)), 1)
    elif rng.random() < 0.03:
        holder[key] = "DEEP"
        deep = b"[" * 100_000 + b"]" * 100_000
        return json.dumps(document).encode().replace(b'"DEEP"', deep, 1)
    else:
        holder[key] = rng.choice(VALUES)
    return json.dumps(document).encode()


def safetensors_damaged(rng: random.Random, data: bytes) -> bytes:
    """A wrong header of the right length, or wrong bytes anywhere."""
    if len(data) < 8 or rng.random() < 0.4:
        return damaged(rng, data, data)
    size = int.from_bytes(data[:8], "little")
    header = json_damaged(rng, data[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def zip_damaged(rng: random.Random, data: bytes) -> bytes:
    """One member of an archive damaged, with the checksum that it then has; or wrong bytes anywhere."""
    if rng.random() < 0.2:
        return damaged(rng, data, data)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new:
        names = old.namelist()
        # Mostly the pickle: the others are numbers.
        bad = next(n for n in names if n.endswith("data.pkl")) if rng.random() < 0.8 else rng.choice(names)
        for name in names:
            member = old.read(name)
            new.writestr(name, damaged(rng, member, member) if name == bad else member)
    return out.getvalue()
