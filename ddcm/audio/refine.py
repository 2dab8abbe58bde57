"""Correct a vocoder's audio towards the mel that it was made from."""

import torch

from ddcm.audio.mel import MelSpec, filterbank, log_mel

PASSES = 3
MAX_GAIN = 6.9  # nats, 60 dB: limit of a band's gain in one pass


def refine(audio: torch.Tensor, mel: torch.Tensor, spec: MelSpec) -> torch.Tensor:
    """Audio (S,) and its target log-mel (1, 1, T, M), S = hop T -> audio (S,) whose log-mel is nearer to the target.
    Each pass measures the audio's log-mel, spreads the difference in each band over its STFT bins as a gain, and keeps
    the phases. It takes several passes because frames overlap."""
    bank = filterbank(spec).to(audio.device)
    share = bank / bank.sum(dim=0, keepdim=True).clamp(min=1e-12)  # [M, bins]
    share[:, 0], share[:, -1] = share[:, 1], share[:, -2]  # no band reaches the first and the last bin
    window = torch.hann_window(spec.n_fft, device=audio.device)
    half = spec.hop // 2  # the mel's frames are centred half a hop later than those of a centred STFT
    for _ in range(PASSES):
        difference = (mel - log_mel(audio[None], spec))[0, 0].clamp(-MAX_GAIN, MAX_GAIN)  # [T, M]
        gain = (difference @ share).exp().T  # [bins, T]
        gain = torch.cat([gain[:, :1], gain, gain[:, -1:]], dim=1)
        padded = torch.nn.functional.pad(audio, (half, half))
        # A centred STFT reflects half a window at the ends; shorter audio is padded with silence instead.
        mode = "reflect" if len(padded) > spec.n_fft // 2 else "constant"
        spectrum = torch.stft(padded, spec.n_fft, spec.hop, window=window, pad_mode=mode, return_complex=True)
        padded = torch.istft(spectrum * gain, spec.n_fft, spec.hop, window=window, length=len(padded))
        audio = padded[half : half + len(audio)]
    return audio
