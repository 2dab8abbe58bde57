"""A vocoder's audio, corrected towards the mel that it was given."""

from __future__ import annotations

import torch

from ddcm.audio.mel import MelSpec, filterbank, log_mel

MAX_GAIN = 6.9  # nats, 60 dB: what a band is moved at most in one pass


def refine(audio: torch.Tensor, mel: torch.Tensor, spec: MelSpec, passes: int = 3) -> torch.Tensor:
    """audio (S,) and the log-mel (1, 1, T, M) that it should have, S = hop T -> audio (S,) that is nearer to it.

    Each pass measures the audio's own log-mel, spreads the difference of every band over its STFT bins as a gain, and
    keeps the phases. A vocoder that already gives the mel it was asked for is left as it is; a weak one loses what it
    smears between partials and gains what it leaves out. Several passes, because frames overlap.
    """
    bank = filterbank(spec).to(audio.device)
    share = bank / bank.sum(dim=0, keepdim=True).clamp(min=1e-12)  # [M, bins]
    share[:, 0], share[:, -1] = share[:, 1], share[:, -2]  # no band reaches the first and the last bin
    window = torch.hann_window(spec.n_fft, device=audio.device)
    half = spec.hop // 2  # frames of the mel are centred half a hop into the signal, those of a centred STFT are not
    for _ in range(passes):
        difference = (mel - log_mel(audio[None], spec))[0, 0].clamp(-MAX_GAIN, MAX_GAIN)  # [T, M]
        gain = (difference @ share).exp().T  # [bins, T]
        gain = torch.cat([gain[:, :1], gain, gain[:, -1:]], dim=1)
        padded = torch.nn.functional.pad(audio, (half, half))
        # Centred frames reflect half a window at the ends; audio shorter than that is padded with silence instead.
        mode = "reflect" if len(padded) > spec.n_fft // 2 else "constant"
        spectrum = torch.stft(padded, spec.n_fft, spec.hop, window=window, pad_mode=mode, return_complex=True)
        padded = torch.istft(spectrum * gain, spec.n_fft, spec.hop, window=window, length=len(padded))
        audio = padded[half : half + len(audio)]
    return audio
