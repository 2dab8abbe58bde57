"""Training batches: windows of 16 kHz audio, kinds drawn evenly, filled from as many clips as it takes."""

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pocket.corpus import KINDS, SAMPLE_RATE, Clip, Corpus

LONGEST_S = 20.0  # what a recording has beyond does not make it more likely to be drawn


def level(audio: np.ndarray) -> np.ndarray:
    """Zero mean and peak 0.5, as AudioLDM's training data."""
    audio = audio - audio.mean()
    return audio / (np.abs(audio).max(initial=0.0) + 1e-8) * 0.5


def mix(audio: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Both at once from the beginning of ``audio``, as loud as its peak was where the sum is louder."""
    both = audio.copy()
    both[: len(other)] += other[: len(audio)]
    return both * min(1.0, np.abs(audio).max(initial=0.0) / (np.abs(both).max(initial=0.0) + 1e-8))


class Windows(IterableDataset):
    """Endless windows {audio (S,), caption, kind} from the training clips.

    ``fill`` continues a window with further clips of the same kind when one is too short (for models of
    sound); without it the rest is silence (for models that read the caption).

    Recordings are levelled as a whole, so that windows hold their quiet passages as quiet as a user's file has
    them; half of the windows are turned down further by up to ``gain_db``. In the share ``mixed`` of them a second clip
    of any kind sounds as well, and the caption is both captions with "and" between them. A clip is drawn by its length
    to the ``length_power``: at 0 a single note as often as a track.
    """

    def __init__(self, corpus: Corpus, frames: int, seed: int, fill: bool, gain_db: float = 12.0, mixed: float = 0.0,
                 length_power: float = 0.5):  # fmt: skip
        self.corpus, self.samples, self.seed, self.fill = corpus, frames * 160, seed, fill
        self.gain_db, self.mixed = gain_db, mixed
        self.clips = {kind: corpus.of("train", kind) for kind in KINDS}
        # A long recording holds more to learn from, but single notes and hits must not drown in tracks.
        self.shares, self.levels = {}, {}
        for kind, clips in self.clips.items():
            weights = np.power([min(clip.length / SAMPLE_RATE, LONGEST_S) for clip in clips], length_power)
            self.shares[kind] = np.cumsum(weights) / weights.sum()
            for clip in clips:
                audio = corpus.audio(clip)
                mean = audio.mean()
                self.levels[clip.offset] = mean, 0.5 / (np.abs(audio - mean).max() + 1e-8)

    def __iter__(self):
        worker = get_worker_info()  # each process of a loader draws windows of its own
        rng = np.random.default_rng(self.seed if worker is None else [self.seed, worker.id])
        while True:
            kind = KINDS[rng.integers(len(KINDS))]
            audio, clip = self._piece(kind, rng)
            while self.fill and len(audio) < self.samples:
                audio = np.concatenate([audio, self._piece(kind, rng)[0]])
            audio = np.pad(audio[: self.samples], (0, max(0, self.samples - len(audio))))
            caption = clip.caption
            if self.mixed and rng.random() < self.mixed:
                other, second = self._piece(KINDS[rng.integers(len(KINDS))], rng)
                audio, caption = mix(audio, other), f"{caption} and {second.caption}"
            audio *= 10 ** (-self.gain_db * rng.random() * (rng.random() < 0.5) / 20)
            yield {"audio": torch.from_numpy(audio.astype(np.float32)), "caption": caption, "kind": clip.kind}

    def _piece(self, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, Clip]:
        clips = self.clips[kind]
        clip = clips[min(int(np.searchsorted(self.shares[kind], rng.random())), len(clips) - 1)]
        start = rng.integers(max(1, clip.length - self.samples + 1))
        mean, gain = self.levels[clip.offset]
        return (self.corpus.audio(clip, start, self.samples) - mean) * gain, clip


def validation(
    corpus: Corpus, seconds: float = 5.12, per_kind: int = 16, pool: str = "first"
) -> list[tuple[Clip, np.ndarray]]:
    """The fixed validation clips of a pool: (clip, levelled audio of at most ``seconds``), at most ``per_kind`` of each
    kind.

    Files in the order of the pool, round after round of consecutive pieces (a second piece of a file only
    once the first of every file of the kind is taken), cut to whole latent frames, none under 0.32 s.
    """
    size = round(seconds * SAMPLE_RATE)
    chosen = []
    for kind in KINDS:
        clips = corpus.of("val", kind, pool)
        step = max(1, len(clips) // per_kind)  # spread over the voices and kits
        clips = clips[::step]
        pieces = [
            (clip, number * size)
            for number in range(per_kind)
            for clip in clips
            if clip.length - number * size >= 0.32 * SAMPLE_RATE
        ]
        for clip, start in pieces[:per_kind]:
            audio = corpus.audio(clip, start, size)
            chosen.append((clip, level(audio[: len(audio) // 640 * 640])))
    return chosen
