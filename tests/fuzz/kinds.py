"""The five kinds of input: how a case is made, and what reads it."""

import contextlib
import io
import random
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ddcm.errors import UserError
from tests.fuzz.codebooks import json_damaged, safetensors_damaged, zip_damaged
from tests.fuzz.mutate import damaged, text_damaged

Case = dict[str, bytes]
"""Files by name: one for most kinds, a folder's for an exported codebook."""
Read = Callable[[Path], None]
"""Reads the case that lies in a folder: returns, or raises UserError."""
ROOT = Path(__file__).parents[2]
WINDOWS, CALLS, DRAWN = 2, 60, 1 << 23  # what decoding an intact but senseless file may take here: it is not a defect
DIGEST = "0123456789abcdef"  # of the random backbone, whatever weights it has on this machine


class Wrong(AssertionError):
    """The package took what it must refuse, or made something impossible of it."""


@dataclass(frozen=True)
class Kind:
    name: str
    change: Callable[[random.Random, Case, Case], Case]
    """(generator, seed, another seed) -> a case"""
    prepare: Callable[[], Read]
    """Imports what it takes; takes a while."""
    share: float
    """Of all cases: kinds that take long get few."""
    shipped: str = ""
    """More seeds, below the project's folder."""


def require(good: bool, what: str) -> None:
    if not good:
        raise Wrong(what)


def _every(change: Callable[[random.Random, bytes, bytes], bytes]) -> Callable[[random.Random, Case, Case], Case]:
    """For cases of one file."""

    def changed(rng: random.Random, case: Case, other: Case) -> Case:
        ((name, content),) = case.items()
        return {name: change(rng, content, next(iter(other.values())))}

    return changed


def _only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def _audio() -> Read:
    from ddcm.audio.files import read_audio

    def read(folder: Path) -> None:
        audio = read_audio(_only(folder))
        require(audio.ndim == 1 and len(audio) > 0 and bool(audio.isfinite().all()), "audio that is none")

    return read


def _change_ddcm(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Half of the cases come with the checksum that they then have, and half of these are wrong in the header only."""
    if rng.random() < 0.5:
        return damaged(rng, data, other)
    body = data[:-4]
    body = damaged(rng, body[:64], other[:64]) + body[64:] if rng.random() < 0.5 else damaged(rng, body, other)
    return body + zlib.crc32(body).to_bytes(4, "little")


def codec():
    """(backbone, codebook, residual codebook) with the same digests everywhere: what the seeds were made with."""
    import torch

    from ddcm.backbone.tiny import tiny_backbone
    from ddcm.quantize import HardQuantizer, ResidualQuantizer
    from ddcm.quantize.pretrained import Codebook

    backbone = tiny_backbone()
    fixed = {"digest": DIGEST, "latent_digest": DIGEST[::-1]}
    backbone.__class__ = type("FixedDigest", (type(backbone),), fixed)
    quantizer = HardQuantizer(32).eval().requires_grad_(False)
    quantizer.codebook.copy_(torch.arange(256.0).reshape(32, 8).remainder(7) - 3)
    residual = ResidualQuantizer(3, HardQuantizer(8)).eval().requires_grad_(False)
    for number, level in enumerate(residual.stack):
        level.codebook.copy_(quantizer.codebook[8 * number : 8 * number + 8])
    codebooks = (Codebook(each, backbone.name, backbone.latent_digest, {}) for each in (quantizer, residual))
    return backbone, *codebooks


def _ddcm() -> Read:
    from ddcm.cli.info import collect_facts
    from ddcm.codec.decompress import decompress, open_stream
    from ddcm.codec.format import unpack

    backbone, fitted, residual = codec()

    def read(folder: Path) -> None:
        data = _only(folder).read_bytes()
        codebook = residual if unpack(data)[0].mode == "hybrid" else fitted
        header, _ = open_stream(data, backbone, codebook)
        require(zlib.crc32(data[:-4]).to_bytes(4, "little") == data[-4:], "a wrong checksum was taken")
        collect_facts(str(_only(folder)))
        windows, atoms, calls = len(header.layout.starts), 0, 0
        if header.schedule is not None:
            atoms, calls = sum(header.steps.atoms), len(header.steps.timesteps) * windows
        if windows <= WINDOWS and calls <= CALLS and atoms * header.latent_size <= DRAWN:
            audio = decompress(data, backbone, codebook, "backbone").audio
            require(audio.shape == (header.samples,) and bool(audio.isfinite().all()), "audio that is none")

    return read


def _change_codebook(rng: random.Random, case: Case, other: Case) -> Case:
    changes = {".json": json_damaged, ".safetensors": safetensors_damaged, ".ckpt": zip_damaged}
    name = rng.choice(list(case))
    return case | {name: changes[Path(name).suffix](rng, case[name])}


def _codebook() -> Read:
    import torch

    from ddcm.quantize.pretrained import load_codebook

    def read(folder: Path) -> None:
        names = [path for path in folder.iterdir() if path.suffix == ".ckpt"]
        quantizer = load_codebook(names[0] if names else folder).quantizer
        z = quantizer.decode(quantizer.encode(torch.zeros(1, quantizer.embedding_dim, 2, 2)))
        require(z.shape == (1, quantizer.embedding_dim, 2, 2) and bool(z.isfinite().all()), "a latent that is none")

    return read


def _manifest() -> Read:
    from ddcm.fit.data.manifest import read_manifest, split_entries
    from ddcm.fit.data.shards import plan_shards, read_status

    def read(folder: Path) -> None:
        entries = read_manifest(_only(folder))
        split_entries(entries)
        plan_shards(entries, read_status(entries))

    return read


def _yaml() -> Read:
    """``python train.py fit -c FILE`` up to where classes are made of what it says."""
    from unittest import mock

    from ddcm.fit import cli

    class Ready(Exception):
        pass

    def stop(self, parser, args):
        raise Ready(self, parser)

    parse = cli.FitCLI.parse_arguments
    with mock.patch.object(cli.FitCLI, "parse_arguments", stop):
        try:
            cli.main([])
        except Ready as caught:
            made, parser = caught.args

    def read(folder: Path) -> None:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                parse(made, parser, ["fit", "--model.backbone=tiny", "-c", str(_only(folder)), "--data.root=x"])
        except SystemExit as error:
            require(error.code == 2 and "error" in said.getvalue(), f"exit code {error.code}")
            raise UserError(said.getvalue()) from error

    return read


CELLS = (b"path", b"split", b"train", b"val", b"test", b"dev", b",", b",,,,", b'"', b'"a\nb"', b"../../../etc/passwd",
         b"a.wav", b"\xff\xfe", b"\x00", b"\r", b"\xef\xbb\xbf", "\u202e.wav".encode(), b"a" * 5000, b"," * 100_000,
         b"a.wav\n" * 2000, b" ", b"/dev/zero", b"-", b"x" * 200_000)  # fmt: skip
VALUES = (b"null", b"~", b"-1", b"0", b"1e999", b".nan", b"true", b"[]", b"{}", b"[1, 2]", b"*a", b"&a x",
          b"<<: *a", b"!!python/object/apply:os.system ['true']", b"!!binary x", b"? [a, b]", b"|", b">", b"---",
          b"...", b"'", b'"\\ud800"', b"\t", b"\x00", b"\xff", 
          b"model:", b"data:", b"trainer:", b"  quantizer:", b"    init_args:", b"    class_path: os.system",
          b"    class_path: ddcm.quantize.SoftQuantizer", b"    class_path: ddcm.quantize.ResidualQuantizer",
          b"  max_steps: -5", b"  seed: 1e30", b"  callbacks: [{class_path: os.system}]", b"  backbone: [tiny]",
          b"99999999999999999999999999", b"2026-11-24", b"x" * 100_000, b"config: configs/fit.yaml")  # fmt: skip

KINDS = {
    kind.name: kind
    for kind in (
        Kind("audio", _every(damaged), _audio, 0.3),
        Kind("ddcm", _every(_change_ddcm), _ddcm, 0.2),
        Kind("codebook", _change_codebook, _codebook, 0.25),
        Kind("manifest", _every(text_damaged(CELLS)), _manifest, 0.2, "examples/*.csv"),
        Kind("yaml", _every(text_damaged(VALUES)), _yaml, 0.05, "configs/*.yaml"),
    )
}
