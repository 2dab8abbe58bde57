"""Train the context model of the codes of one latent space: ``ddcm/codec/codes/contexts/DIGEST-REVISION.npz``.

    python -m benchmarks.code_context --corpus runs/corpus --revision 2

Training clips of the pool become latents and codes of a residual codebook: of several numbers of levels, with and
without a price on bits. The network learns to give the codes few bits, in floating point. Its weights are then rounded
to the integers that ``ddcm.codec.codes.context`` computes with. Files of the codec record the revision, so weights that
are trained again get a new one.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import trange

from ddcm.audio.level import normalise_level
from ddcm.audio.mel import log_mel
from ddcm.backbone import load
from ddcm.codec.codes.context import ABOVE, BELOW, EVEN, FOLDER, ODD, ONE, RUNNING, WEIGHT, FixedAtoms, fix_atoms
from ddcm.codec.codes.model import SURE, TRUST
from ddcm.codec.codes.search import Rates, search
from ddcm.codec.header import BANDS
from ddcm.quantize.pretrained import load_codebook
from ddcm.runtime.files import write_atomically

LEVELS = (1, 2, 3, 4, 6, 8)
END = 0.05  # probability that a cell ends, when the codes to learn from are chosen
CROP = 16  # frames
LATENT_FRAME = 640  # samples


def read_latents(args: argparse.Namespace, backbone) -> list[torch.Tensor]:
    """Latents (C, L, F) of training clips of all kinds; kept in the file ``--latents``."""
    from pocket.corpus import KINDS, Corpus

    if args.latents and args.latents.exists():
        with np.load(args.latents) as data:
            return [torch.from_numpy(data[name]).float() for name in data]
    corpus, rng, found = Corpus(args.corpus), np.random.default_rng(1), []
    for kind in KINDS:
        clips = corpus.of("train", kind)
        for i in rng.permutation(len(clips))[: args.clips]:
            size = min(clips[i].length, 64 * LATENT_FRAME) // (4 * LATENT_FRAME) * 4 * LATENT_FRAME
            if size < CROP * LATENT_FRAME:
                continue
            audio = corpus.audio(clips[i], int(rng.integers(clips[i].length - size + 1)), size)
            mel = log_mel(normalise_level(torch.as_tensor(audio).float())[0][None], backbone.mel_spec)
            found.append((backbone.posterior(mel)[0] * backbone.scaling_factor)[0])
    if args.latents:
        np.savez(args.latents, **{str(i): z.numpy().astype(np.float16) for i, z in enumerate(found)})
    return found


def choose(z: torch.Tensor, atoms: torch.Tensor, fixed: FixedAtoms, levels: int, is_priced: bool) -> torch.Tensor:
    """Codes (L, F, Q) with no context; K ends a cell."""
    cells, rates, price = z.movedim(0, -1).reshape(-1, z.shape[0]), None, 0.0
    if is_priced:
        usage, rest = torch.tensor(fixed.usage).float(), torch.tensor(fixed.rest).float() / ONE**2
        rates = Rates(usage / usage.sum(1, keepdim=True), torch.full((levels, len(cells)), END), rest)
        price = 2 * math.log(2) * float(rest[levels - 1].mean())
    codes, _ = search(cells, torch.ones_like(cells), atoms[:levels], rates, price, 4)
    return codes.reshape(*z.shape[1:], levels)


class Net(nn.Module):
    """``ddcm.codec.codes.context`` in floating point, for whole clips at once."""

    def __init__(self, atoms: torch.Tensor, fixed: list[FixedAtoms], hidden: int):
        super().__init__()
        dim = atoms.shape[2]
        self.atoms = torch.cat([atoms, torch.zeros_like(atoms[:, :1])], dim=1)
        self.fixed, size = fixed, 9 * dim + BANDS + 1
        self.even, self.odd = (
            nn.Sequential(nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
                          nn.Linear(hidden, 2 * dim)) for n in (size, size + 2 * dim)
        )  # fmt: skip
        self.widen = nn.Parameter(torch.zeros(()))

    def predict(self, z: torch.Tensor, noise: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Decoded z (B, L, F, D) -> means and variances."""
        frames, bands = z.shape[1:3]
        padded = F.pad(z, (0, 0, 2, 2, 2, 0))

        def near(back: int, step: int) -> torch.Tensor:
            return padded[:, 2 - back : 2 - back + frames, 2 + step : 2 + step + bands]

        running, means = torch.zeros_like(z[:, 0]), []
        for frame in z.unbind(1):
            means.append(running)
            running = running + (frame - running) / RUNNING
        inputs = [near(1, step) for step in (-2, -1, 0, 1, 2)] + [near(2, step) for step in (-1, 0, 1)]
        inputs += [torch.stack(means, 1), torch.eye(bands).expand(*z.shape[:3], bands)]
        inputs.append(torch.full_like(z[..., :1], noise / ONE))
        x = torch.cat(inputs, -1)
        beside = torch.cat([near(0, -1), near(0, 1)], -1)
        out = z.new_empty(*z.shape[:3], 2 * z.shape[3])
        out[:, :, ::2] = self.even(x[:, :, ::2])
        out[:, :, 1::2] = self.odd(torch.cat([x, beside], -1)[:, :, 1::2])
        mean, log = out.chunk(2, -1)
        return mean, log.clamp(BELOW, ABOVE).exp()

    def bits(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (B, L, F, Q) -> bits (B, L, F, Q), 0 where a cell has ended."""
        levels, size = codes.shape[-1], self.atoms.shape[1] - 1
        fixed, bits = self.fixed[levels - 1], []
        parts = [self.atoms[level][codes[..., level]] for level in range(levels)]
        mean, variance = self.predict(torch.stack(parts).sum(0), fixed.noise)
        for level, part in enumerate(parts):
            usage = torch.tensor(fixed.usage[level]).float() / float(fixed.usage[level].sum())
            width = variance + torch.tensor(fixed.rest[level]).float() / ONE**2 * self.widen.exp()
            away = (mean[..., None, :] - self.atoms[level, :-1]).square()
            context = torch.softmax(usage.log() - 0.5 * (away / width[..., None, :]).sum(-1), -1)
            shares = (TRUST * context + (16 - TRUST) * usage) / 16
            code = codes[..., level]
            chosen = shares.gather(-1, code.clamp(max=size - 1)[..., None])[..., 0]
            bits.append(torch.where(code < size, -chosen.log2(), 0.0))
            mean = mean - part
        return torch.stack(bits, -1)


def count_ends(clips: list[torch.Tensor], size: int) -> np.ndarray:
    """(27,): how often a cell ends before a level, by its neighbours, in 1 / SURE."""
    ended, reached = np.zeros(27), np.zeros(27)
    for codes in clips:
        levels = codes.shape[-1]
        lengths = (codes < size).sum(-1).numpy()  # (L, F)
        before = np.pad(lengths, ((1, 0), (1, 1)), constant_values=levels)
        here = np.pad(lengths, ((0, 0), (1, 1)), constant_values=levels)
        odd = np.arange(lengths.shape[1]) % 2 == 1
        left = np.where(odd, here[:, :-2], before[:-1, :-2])
        right = np.where(odd, here[:, 2:], before[:-1, 2:])
        for level in range(levels):
            near = np.stack([before[:-1, 1:-1], left, right])
            context = np.tensordot([9, 3, 1], 1 + np.sign(near - level), 1)
            np.add.at(reached, context[lengths >= level], 1)
            np.add.at(ended, context[lengths == level], 1)
    return np.clip(np.round(SURE * (ended + 0.2) / (reached + 10)), SURE >> 7, SURE - (SURE >> 7))


def export(net: Net, stops: np.ndarray, path: Path) -> None:
    """The weights as integers."""
    arrays = {"widen": np.round(ONE * net.widen.exp().item()).astype(np.int32), "stops": stops.astype(np.int16)}
    for parity, layers in ((EVEN, net.even), (ODD, net.odd)):
        for i, layer in enumerate(layer for layer in layers if isinstance(layer, nn.Linear)):
            arrays[f"{parity}.{i}.weight"] = (layer.weight.detach().double().T * WEIGHT).round().int().numpy()
            arrays[f"{parity}.{i}.bias"] = (layer.bias.detach().double() * ONE * WEIGHT).round().int().numpy()
    path.parent.mkdir(exist_ok=True)
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="checkpoints/pocket")
    parser.add_argument("--codebook", default="checkpoints/codebooks/pocket-residual")
    parser.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--latents", type=Path, help="a .npz that keeps the latents for the next time")
    parser.add_argument("--clips", type=int, default=600, help="of each kind at most")
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--revision", type=int, default=2, help="2 to 255; files record it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng, backbone = np.random.default_rng(0), load(args.backbone)
    quantizer = load_codebook(args.codebook).quantizer
    atoms, usage = quantizer.level_atoms.detach(), quantizer.atom_usage()
    fixed = [fix_atoms(atoms[:n].numpy(), usage[:n].numpy()) for n in range(1, len(atoms) + 1)]
    groups: dict[int, list[torch.Tensor]] = {levels: [] for levels in LEVELS}
    priced = []
    with torch.no_grad():
        for number, z in enumerate(read_latents(args, backbone)):
            levels, is_priced = LEVELS[number // 2 % len(LEVELS)], number % 2 == 1
            codes = choose(z, atoms, fixed[(levels if is_priced else len(atoms)) - 1],
                           levels if is_priced else len(atoms), is_priced)  # fmt: skip
            if is_priced:
                priced.append(codes)
            for n in (levels,) if is_priced else LEVELS:
                groups[n].append(codes[..., :n])
    net = Net(atoms, fixed, args.hidden)
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=args.steps)
    recent: dict[int, float] = {}
    with trange(args.steps, desc="train", mininterval=10) as bar:
        for step in bar:
            levels = LEVELS[rng.integers(len(LEVELS))]
            batch = []
            for i in rng.integers(len(groups[levels]), size=24):
                codes = groups[levels][i]
                begin = rng.integers(len(codes) - CROP + 1) if rng.random() < 0.7 else 0
                batch.append(codes[begin : begin + CROP])
            bits = net.bits(torch.stack(batch)).sum(-1).mean()
            optimizer.zero_grad()
            (bits / levels).backward()
            optimizer.step()
            schedule.step()
            recent[levels] = 0.95 * recent.get(levels, float(bits)) + 0.05 * float(bits)
            if step % 200 == 0:
                bar.set_postfix({str(n): f"{recent[n]:.2f}" for n in sorted(recent)})
    export(net, count_ends(priced, quantizer.codebook_size), FOLDER / f"{backbone.latent_digest}-{args.revision}.npz")


if __name__ == "__main__":
    main()
