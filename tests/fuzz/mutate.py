"""How a case is made of a seed. The same generator gives the same case."""

import random
from collections.abc import Callable

EDGES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
         (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip


def flip(rng: random.Random, data: bytearray, other: bytes) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data))
    data[at : at + 1] = bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))])


def number(rng: random.Random, data: bytearray, other: bytes) -> None:
    """An integer of 2, 4 or 8 bytes at the edge of what it can be; near the start, where headers are."""
    size, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
    at = rng.randrange(min(len(data), rng.choice((64, 256, 1 << 20))))
    data[at : at + size] = (rng.choice(EDGES) % (1 << 8 * size)).to_bytes(size, order)


def cut(rng: random.Random, data: bytearray, other: bytes) -> None:
    del data[rng.randrange(len(data)) :]


def remove(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 64)]


def repeat(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randint(1, 64)] * rng.choice((1, 2, 50))


def insert(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = rng.randbytes(rng.randint(1, 16))


def swap(rng: random.Random, data: bytearray, other: bytes) -> None:
    a, b, size = rng.randrange(len(data)), rng.randrange(len(data)), rng.randint(1, 32)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    """The start of this one and the end of another."""
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other) + 1) :]


BYTES = (flip, flip, overwrite, overwrite, number, number, number, cut, remove, repeat, insert, swap, splice)


def damaged(rng: random.Random, seed: bytes, other: bytes) -> bytes:
    """One to eight changes, mostly few: a file that is wrong everywhere is refused at once."""
    data = bytearray(seed)
    for _ in range(min(rng.choice((1, 1, 1, 2, 3, 8)), 8)):
        if data:
            rng.choice(BYTES)(rng, data, other)
    return bytes(data)


def text_damaged(words: tuple[bytes, ...]) -> Callable[[random.Random, bytes, bytes], bytes]:
    """Changes to lines and words of a text, with words that mean something (or too much) there; sometimes to bytes."""

    def change(rng: random.Random, seed: bytes, other: bytes) -> bytes:
        if rng.random() < 0.3:
            return damaged(rng, seed, other)
        data = seed
        for _ in range(rng.randint(1, 4)):
            lines = data.split(b"\n")
            at = rng.randrange(len(lines))
            kind = rng.randrange(6)
            if kind == 0:  # a word in the place of another
                parts = lines[at].split(b" ")
                parts[rng.randrange(len(parts))] = rng.choice(words)
                lines[at] = b" ".join(parts)
            elif kind == 1:
                lines.insert(at, rng.choice(words))
            elif kind == 2:
                lines[at] = lines[at] * rng.choice((2, 3, 500))
            elif kind == 3:
                lines[at] = (
                    lines[at].replace(b":", b": " + rng.choice(words), 1).replace(b",", b"," + rng.choice(words), 1)
                )
            elif kind == 4:
                del lines[at]
            else:
                lines[at] = rng.choice(other.split(b"\n"))
            data = b"\n".join(lines)
        return data

    return change
