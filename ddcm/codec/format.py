"""The bytes of a ``.ddcm`` file: a self-describing header, a payload, and a checksum over both.

    magic "ddcm" | version | flags, arithmetic and bases | digest of the backbone (4) | samples | level (2 + 2)
    | mel spec, if it is not AudioLDM2's | seed, if not 0 | prompt and guidance, if there is a prompt
    | interval of the UNet's cache, if not 1
    | vq, hybrid: digest of the codebook (4), atoms, levels, revision of the model of the codes (1)
    | hybrid: the first of the levels
    | gaussian: log2 of the atoms; classic: coefficient bits
    | all but vq: the schedule, parametric (8 bytes or so) or explicit
    | a byte for each window, if their shares of atoms differ
    | payload | CRC-32 of everything before it

Little-endian; "varint" is base 128, low bits first. Sizes are checked first. A change of meaning raises ``VERSION``.
"""

import io
import operator
import struct
import zlib
from dataclasses import asdict, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from ddcm.codec.codec_settings import BASES, WITH_CODEBOOK
from ddcm.codec.header import (
    BOOKS,
    DIGITS,
    MAX_PROMPT,
    MEL,
    MODES,
    Header,
    ceil_log2,
    check_bounds,
    check_codebook,
    validate,
)
from ddcm.codec.step_schedule import MAX_STEPS, ExplicitSchedule, ParametricSchedule, Schedule
from ddcm.errors import UserError, describe_error
from ddcm.recipes import DTYPES
from ddcm.runtime.files import write_atomically

MAGIC, VERSION, EARLIEST = b"ddcm", 6, 2
# Version 2 has two bytes more: windows of a UNet call, CPU threads. Before version 4, the codes of vq have model 0.
# Before version 5, digests have eight bytes, a parametric schedule is made of varints, and every file with a schedule
# has the two bytes for atoms and coefficients. Before version 6, a hadamard codebook has one basis.
MAX_FILE = 1 << 28  # bytes; a day at 4 kbps is 43 MB
_LEVEL, _MEL, _CRC = struct.Struct("<eh"), struct.Struct("<IIIIddd"), struct.Struct("<I")
_SHAPE = struct.Struct("<IBB")  # steps, first and last in ten bits each, power, growth


def read(path: Path) -> bytes:
    """Read a file that can be a ``.ddcm`` file. Raises UserError: missing, unreadable, or larger than any .ddcm
    file."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise UserError(f"{path.stat().st_size} bytes are more than a .ddcm file can have")
        return path.read_bytes()
    except OSError as error:
        raise UserError(describe_error(error)) from error


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError: it cannot be written."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)


def pack(header: Header, payload: bytes) -> bytes:
    """The bytes of the file. Raises UserError: a field is out of its bounds."""
    check_bounds(header)
    check_codebook(header)
    flags = MODES.index(header.mode) | BOOKS.index(header.book) << 2
    flags |= isinstance(header.schedule, ExplicitSchedule) << 3
    flags |= (header.mel != MEL) << 4 | (header.seed != 0) << 5 | (header.prompt != "") << 6
    flags |= (header.cache_interval != 1) << 7
    arithmetic = DTYPES.index(header.dtype) | header.stock_null << 2 | bool(header.shares) << 3
    out = bytearray(MAGIC) + bytes([VERSION, flags, arithmetic | BASES.index(header.bases) << 4])
    out += bytes.fromhex(header.backbone) + varint(header.samples) + _LEVEL.pack(header.mean, header.gain)
    if header.mel != MEL:
        out += _MEL.pack(*header.mel)
    if header.seed:
        out += varint(header.seed)
    if header.prompt:
        text = header.prompt.encode()
        out += varint(len(text)) + text + varint(header.guidance)
    if header.cache_interval != 1:
        out.append(header.cache_interval)
    if header.codebook:
        out += bytes.fromhex(header.codebook) + varint(header.atoms) + varint(header.levels)
        out.append(header.code_model)
    if header.mode == "hybrid":
        out += varint(header.first_level)
    if header.schedule is not None:
        if header.book != "hadamard":
            out.append(header.log2_atoms)
        if header.mode == "classic":
            out.append(header.coefficient_bits)
        out += _pack_schedule(header.schedule)
    out += bytes(header.shares) + payload
    return bytes(out) + _CRC.pack(zlib.crc32(out))


def unpack(data: bytes) -> tuple[Header, bytes]:
    """The header and the payload of a file. Raises UserError: not a .ddcm file, another version, damaged, or a field
    out of its bounds."""
    if data[: len(MAGIC)] != MAGIC:
        raise UserError("not a .ddcm file")
    if len(data) > MAX_FILE:
        raise UserError(f"{len(data)} bytes are more than the {MAX_FILE} that a .ddcm file can have")
    version = data[len(MAGIC)] if len(data) > len(MAGIC) else VERSION
    if not EARLIEST <= version <= VERSION:
        raise UserError(f"a .ddcm file of version {version}; this ddcm reads versions {EARLIEST} to {VERSION}")
    body, crc = data[:-4], data[-4:]
    if len(data) < 12 or zlib.crc32(body) != _CRC.unpack(crc)[0]:
        raise UserError("the .ddcm file is damaged or truncated: its checksum does not fit")
    reader = _Reader(body[len(MAGIC) + 1 :])
    try:
        header = _read_header(reader, version)
        check_bounds(header)
        check_codebook(header)
    except (ValueError, struct.error) as error:  # a UserError of check_bounds is a ValueError
        raise UserError(f"the .ddcm file's header is damaged: {error}") from error
    return header, reader.read()


class _Reader(io.BytesIO):
    """Reads the fields of a header, never beyond the end."""

    def take(self, count: int) -> bytes:
        data = self.read(count)
        if len(data) < count:
            raise ValueError("it ends too early")
        return data

    def varint(self) -> int:
        value = 0
        for shift in range(0, 42, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number that is too long")


def _read_header(reader: _Reader, version: int) -> Header:
    flags, arithmetic = reader.take(2)
    if flags & 3 >= len(MODES) or arithmetic & 3 >= len(DTYPES) or arithmetic >> (7 if version >= 6 else 4):
        raise ValueError("unknown flags")
    mode = MODES[flags & 3]
    fields: dict[str, Any] = dict(backbone=_read_digest(reader, version), samples=reader.varint())
    fields["bases"] = BASES[arithmetic >> 4]
    fields["mean"], fields["gain"] = _LEVEL.unpack(reader.take(_LEVEL.size))
    reader.take(2 if version == 2 else 0)
    if flags >> 4 & 1:
        fields["mel"] = _MEL.unpack(reader.take(_MEL.size))
    if flags >> 5 & 1:
        fields["seed"] = reader.varint()
    if flags >> 6 & 1:
        size = reader.varint()
        if size > MAX_PROMPT:
            raise ValueError(f"a prompt of {size} bytes")
        fields |= dict(prompt=reader.take(size).decode(), guidance=reader.varint())
    if flags >> 7:
        fields["cache_interval"] = reader.take(1)[0]
    if mode in WITH_CODEBOOK:
        fields |= dict(codebook=_read_digest(reader, version), atoms=reader.varint(), levels=reader.varint())
        fields["code_model"] = reader.take(1)[0] if version >= 4 else 0
    if mode == "hybrid":
        fields["first_level"] = reader.varint()
    book = BOOKS[flags >> 2 & 1]
    if mode != "vq":
        fields["log2_atoms"] = reader.take(1)[0] if version < 5 or book != "hadamard" else 1
        if version < 5 or mode == "classic":
            fields["coefficient_bits"] = reader.take(1)[0]
        fields["schedule"] = _read_schedule(reader, bool(flags >> 3 & 1), version)
    dtype, stock_null = DTYPES[arithmetic & 3], bool(arithmetic >> 2 & 1)
    header = Header(mode, dtype=dtype, stock_null=stock_null, book=book, **fields)
    check_bounds(header)  # before the number of windows is computed from them
    if version >= 5 and mode != "vq" and book == "hadamard":
        header = replace(header, log2_atoms=ceil_log2(header.latent_size))
    if arithmetic >> 3 & 1:
        header = replace(header, shares=tuple(reader.take(len(header.layout.starts))))
    return header


def _read_digest(reader: _Reader, version: int) -> str:
    return reader.take(4 if version >= 5 else 8).hex()[:DIGITS]


def describe(path: Path) -> dict[str, Any]:
    """Facts by name: header, rate, schedule. Raises UserError: the file cannot be read or is damaged."""
    try:
        data = read(path)
        header, payload = unpack(data)
        validate(header, payload)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    facts = {"what": "ddcm file", "version": data[len(MAGIC)], "bytes": len(data), "seconds": f"{header.seconds:g}"}
    facts["kbps"] = f"{len(data) / 125 / header.seconds:.3f}"
    facts |= {name: value for name, value in asdict(header).items() if name not in ("schedule", "shares")}
    facts |= {"windows": len(header.layout.starts), "window frames": header.layout.size, "payload bytes": len(payload)}
    if header.schedule is not None:
        is_guided = header.prompt != "" and header.guidance != 256
        facts |= {
            "timesteps": " ".join(map(str, header.steps.timesteps)),
            "atoms of each step": " ".join(map(str, header.steps.atoms)),
            "UNet calls of a window": len(header.steps.timesteps) * (2 if is_guided else 1),
            "bits of a window": " ".join(
                map(str, [b - a for a, b in pairwise(header.offsets)][: 1 if not header.shares else None])
            ),
        }
    if header.mode == "hybrid":
        facts["bytes of the codes"] = len(payload) - header.trajectory_bytes
    return facts


def varint(value: int) -> bytes:
    """An integer >= 0 in base 128, the low seven bits first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _pack_schedule(schedule: Schedule) -> bytes:
    if isinstance(schedule, ParametricSchedule):
        ends = schedule.steps | schedule.first << 10 | schedule.last << 20
        return _SHAPE.pack(ends, schedule.power, schedule.growth) + varint(schedule.total)
    falls = [a - b for a, b in pairwise(schedule.timesteps)]
    return b"".join(map(varint, (len(schedule.timesteps), schedule.timesteps[0], *falls, *schedule.atoms)))


def _read_schedule(reader: _Reader, is_explicit: bool, version: int) -> Schedule:
    if not is_explicit and version >= 5:
        ends, power, growth = _SHAPE.unpack(reader.take(_SHAPE.size))
        if ends >> 30:
            raise ValueError("unknown flags")
        return ParametricSchedule(ends & 1023, power, growth, reader.varint(), ends >> 10 & 1023, ends >> 20)
    count = reader.varint()
    if not is_explicit:
        power, growth = reader.take(2)
        return ParametricSchedule(count, power, growth, reader.varint(), reader.varint(), reader.varint())
    timestep = reader.varint()
    if not 2 <= count <= MAX_STEPS:
        raise ValueError(f"{count} timesteps")
    timesteps = accumulate((reader.varint() for _ in range(count - 1)), operator.sub, initial=timestep)
    return ExplicitSchedule(tuple(timesteps), tuple(reader.varint() for _ in range(count - 1)))
