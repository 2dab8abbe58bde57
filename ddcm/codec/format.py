"""The ``.ddcm`` file: one self-describing header, a payload, and a checksum over both. Needs no model to be read.

    magic "ddcm" | version | flags, arithmetic | digest of the backbone (8) | samples | level (2 + 2) | lanes, threads
    | mel spec, if it is not AudioLDM2's | seed, if not 0 | prompt and guidance, if there is a prompt
    | vq: digest of the codebook (8), atoms, levels
    | else: log2 of the atoms, coefficient bits, then the schedule: a curve (8 bytes or so) or explicit lists
    | payload | CRC-32 of everything before it

Little-endian; "varint" is base 128, low bits first. Sizes are checked first. A change of meaning raises ``VERSION``.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from ddcm.codec.schedule import MAX_STEPS, ExplicitSchedule, ParametricSchedule
from ddcm.codec.settings import Book, Mode
from ddcm.errors import UserError, describe_error, is_utf8
from ddcm.recipes import DTYPES

MAGIC, VERSION = b"ddcm", 2
MODES, BOOKS = get_args(Mode), get_args(Book)  # in the order of the flags
MEL = (16000, 1024, 160, 64, 0.0, 8000.0, 1e-5)  # AudioLDM2's: sample_rate, n_fft, hop, n_mels, fmin, fmax, floor
MAX_FILE = 1 << 28  # bytes; a day at 4 kbps is 43 MB
MAX_SAMPLES = 1 << 31  # what a 16-bit wav can hold, 37 h
MAX_PROMPT, MAX_LOG2 = 2000, 20
MAX_GAIN = 32 * 256  # 1/256 of octaves; beyond it float32 would not hold what is made of it
_LEVEL, _MEL, _CRC = struct.Struct("<eh"), struct.Struct("<IIIIddd"), struct.Struct("<I")


@dataclass(frozen=True)
class Stream:
    """What a file says."""

    mode: str
    """turbo, classic or vq"""
    backbone: str
    """digest (16 hexadecimal digits) of the denoiser, or for vq of the latent space"""
    samples: int
    """length of the audio at the mel's sample rate"""
    mean: float = 0.0
    """of the recording; kept as a half-precision number"""
    gain: int = 0
    """log2 of the gain that brought the recording to AudioLDM2's level, in 1/256"""
    lanes: int = 1
    """windows in a UNet call: a batch rounds otherwise than its rows alone"""
    threads: int = 1
    """CPU threads of the encoder, for the same reason"""
    dtype: str = "float32"
    """of the UNet"""
    stock_null: bool = False
    """what no prompt means: diffusers' GPT2("") and not what AudioLDM2 was trained with"""
    mel: tuple[float, ...] = MEL
    seed: int = 0
    """of every random number, in [0, 2^32)"""
    prompt: str = ""
    guidance: int = 256
    """scale of classifier-free guidance under the prompt, in 1/256"""
    book: str = "hadamard"
    """the noise codebook"""
    log2_atoms: int = 0
    coefficient_bits: int = 0
    """classic: bits of the coefficient of every atom after the first of a step"""
    schedule: ParametricSchedule | ExplicitSchedule | None = None
    codebook: str = ""
    """vq: digest of the fitted codebook"""
    atoms: int = 0
    """vq: atoms of a level"""
    levels: int = 0
    """vq: levels of the residual codebook"""
    payload: bytes = b""


def pack(stream: Stream) -> bytes:
    """The bytes of the file.

    Raises:
        UserError: a field is out of its bounds.
    """
    check(stream)
    lists, vq = isinstance(stream.schedule, ExplicitSchedule), stream.mode == "vq"
    flags = MODES.index(stream.mode) | BOOKS.index(stream.book) << 2 | lists << 3
    flags |= (stream.mel != MEL) << 4 | (stream.seed != 0) << 5 | (stream.prompt != "") << 6
    out = bytearray(MAGIC) + bytes([VERSION, flags, DTYPES.index(stream.dtype) | stream.stock_null << 2])
    out += bytes.fromhex(stream.backbone) + varint(stream.samples) + _LEVEL.pack(stream.mean, stream.gain)
    out += bytes([stream.lanes, stream.threads])
    out += _MEL.pack(*stream.mel) if stream.mel != MEL else b""
    if stream.seed:
        out += varint(stream.seed)
    if stream.prompt:
        text = stream.prompt.encode()
        out += varint(len(text)) + text + varint(stream.guidance)
    if vq:
        out += bytes.fromhex(stream.codebook) + varint(stream.atoms) + varint(stream.levels)
    else:
        out += bytes([stream.log2_atoms, stream.coefficient_bits])
        assert stream.schedule is not None, "check() comes first"
        out += (
            _pack_lists(stream.schedule)
            if isinstance(stream.schedule, ExplicitSchedule)
            else _pack_curve(stream.schedule)
        )
    out += stream.payload
    return bytes(out) + _CRC.pack(zlib.crc32(out))


def unpack(data: bytes) -> Stream:
    """A file's bytes -> what it says. Every way in which they can be wrong ends in one line.

    Raises:
        UserError: not a .ddcm file, another version, damaged, or a field out of its bounds.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise UserError("not a .ddcm file")
    if len(data) > MAX_FILE:
        raise UserError(f"{len(data)} bytes are more than the {MAX_FILE} that a .ddcm file can have")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise UserError(f"a .ddcm file of version {data[len(MAGIC)]}; this ddcm reads version {VERSION}")
    body, crc = data[:-4], data[-4:]
    if len(data) < 12 or zlib.crc32(body) != _CRC.unpack(crc)[0]:
        raise UserError("the .ddcm file is damaged or truncated: its checksum does not fit")
    reader = _Reader(body, len(MAGIC) + 1)
    try:
        stream = _read(reader)
        check(stream)
    except (ValueError, struct.error) as error:  # UserError is a ValueError: what check() says is kept
        raise UserError(f"the .ddcm file's header is damaged: {error}") from error
    return replace(stream, payload=body[reader.at :])


def read(path: Path) -> bytes:
    """A file's bytes, if it can be a .ddcm file at all.

    Raises:
        UserError: missing, unreadable, or larger than any .ddcm file.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise UserError(f"{path.stat().st_size} bytes are more than a .ddcm file can have")
        return path.read_bytes()
    except OSError as error:
        raise UserError(describe_error(error)) from error


def _read(reader: _Reader) -> Stream:
    flags, arithmetic = reader.take(2)
    if flags & 3 >= len(MODES) or flags >> 7 or arithmetic & 3 >= len(DTYPES) or arithmetic >> 3:
        raise ValueError("unknown flags")
    mode, vq = MODES[flags & 3], MODES[flags & 3] == "vq"
    fields: dict[str, Any] = dict(backbone=reader.take(8).hex(), samples=reader.varint())
    fields["mean"], fields["gain"] = _LEVEL.unpack(reader.take(_LEVEL.size))
    fields["lanes"], fields["threads"] = reader.take(2)
    if flags >> 4 & 1:
        fields["mel"] = _MEL.unpack(reader.take(_MEL.size))
    if flags >> 5 & 1:
        fields["seed"] = reader.varint()
    if flags >> 6 & 1:
        size = reader.varint()
        if size > MAX_PROMPT:
            raise ValueError(f"a prompt of {size} bytes")
        fields |= dict(prompt=reader.take(size).decode(), guidance=reader.varint())
    if vq:
        fields |= dict(codebook=reader.take(8).hex(), atoms=reader.varint(), levels=reader.varint())
    else:
        fields["log2_atoms"], fields["coefficient_bits"] = reader.take(2)
        fields["schedule"] = _read_lists(reader) if flags >> 3 & 1 else _read_curve(reader)
    dtype, stock_null = DTYPES[arithmetic & 3], bool(arithmetic >> 2 & 1)
    return Stream(mode, dtype=dtype, stock_null=stock_null, book=BOOKS[flags >> 2 & 1], **fields)


def check(stream: Stream) -> None:
    """Bounds of every field.

    Raises:
        UserError: which field is out of them.
    """
    rate, _, hop, bands, *_ = stream.mel
    within = [
        ("mode", stream.mode in MODES), ("book", stream.book in BOOKS), ("dtype", stream.dtype in DTYPES),
        ("backbone", _is_digest(stream.backbone)), ("samples", 1 <= stream.samples <= MAX_SAMPLES),
        ("mean", -65504 <= stream.mean <= 65504), ("gain", -MAX_GAIN <= stream.gain <= MAX_GAIN),
        ("lanes", 1 <= stream.lanes <= 64), ("threads", 1 <= stream.threads <= 64),
        ("mel", 1000 <= rate <= 192000 and 16 <= hop <= 4096 and bands == MEL[3] and len(stream.mel) == len(MEL)),
        ("seed", 0 <= stream.seed < 1 << 32),
        ("prompt", is_utf8(stream.prompt) and len(stream.prompt.encode()) <= MAX_PROMPT),
        ("guidance", 0 <= stream.guidance <= 100 * 256),
    ]  # fmt: skip
    if stream.mode == "vq":
        within += [
            ("codebook", _is_digest(stream.codebook)), ("atoms", 2 <= stream.atoms <= 1 << MAX_LOG2),
            ("levels", 1 <= stream.levels <= 64), ("schedule", stream.schedule is None),
        ]  # fmt: skip
    else:
        bits = stream.coefficient_bits
        within += [
            ("log2_atoms", 1 <= stream.log2_atoms <= MAX_LOG2),
            ("coefficient_bits", 2 <= bits <= 8 if stream.mode == "classic" else bits == 0),
            ("schedule", stream.schedule is not None and stream.schedule.is_valid),
        ]  # fmt: skip
    for name, good in within:
        if not good:
            raise UserError(f"{name} is out of bounds")


def _is_digest(text: str) -> bool:
    return len(text) == 16 and set(text) <= set("0123456789abcdef")


def varint(value: int) -> bytes:
    """An integer >= 0 in base 128, the low seven bits first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _pack_curve(curve: ParametricSchedule) -> bytes:
    shape = bytes([curve.power, curve.growth])
    return varint(curve.steps) + shape + b"".join(map(varint, (curve.total, curve.first, curve.last)))


def _read_curve(reader: _Reader) -> ParametricSchedule:
    steps, (power, growth) = reader.varint(), reader.take(2)
    return ParametricSchedule(steps, power, growth, reader.varint(), reader.varint(), reader.varint())


def _pack_lists(lists: ExplicitSchedule) -> bytes:
    falls = [a - b for a, b in pairwise(lists.timesteps)]
    return b"".join(map(varint, (len(lists.timesteps), lists.timesteps[0], *falls, *lists.atoms)))


def _read_lists(reader: _Reader) -> ExplicitSchedule:
    count, timestep = reader.varint(), reader.varint()
    if not 2 <= count <= MAX_STEPS:
        raise ValueError(f"{count} timesteps")
    timesteps = [timestep]
    for _ in range(count - 1):
        timesteps.append(timesteps[-1] - reader.varint())
    return ExplicitSchedule(tuple(timesteps), tuple(reader.varint() for _ in range(count - 1)))


class _Reader:
    """Bytes from a place on; never beyond the end."""

    def __init__(self, data: bytes, at: int):
        self._data, self.at = data, at

    def take(self, count: int) -> bytes:
        if self.at + count > len(self._data):
            raise ValueError("it ends too early")
        self.at += count
        return self._data[self.at - count : self.at]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 42, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number that is too long")
