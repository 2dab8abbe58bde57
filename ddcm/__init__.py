"""ddcm: quantise the latents of a frozen AudioLDM2 and bring them back as audio.

Axes, named once for the whole package:

    B batch    S samples (16 kHz)    T mel frames (10 ms)    M mel bands (64)
    C latent channels (8)    L latent frames (T/4)    F latent bands (M/4 = 16)
    N cells (B * L * F)      K atoms                  D numbers of an atom (= C)

Tensors:  audio (B, S)    mel (B, 1, T, M)    z_raw, z (B, C, L, F)    cells (N, D)    codes (B, L, F)
"""

from ddcm.runtime.threads import wait_passively

__version__ = "0.1.0"

__all__ = ["DDCMPipeline"]

wait_passively()


def __getattr__(name: str):  # lazy: ``import ddcm`` must not import torch
    if name == "DDCMPipeline":
        from ddcm.pipeline import DDCMPipeline

        return DDCMPipeline
    raise AttributeError(f"module 'ddcm' has no attribute {name!r}")
