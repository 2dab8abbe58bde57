"""The quantizers that fits are tested with, as options of ``train.py``; small, and atoms die quickly."""

SMALL = {"codebook_size": 64, "decay": 0.8, "threshold_usage_ratio": 0.2}


def _options(cls: str, inner: str = "", **settings) -> list[str]:
    return [
        f"--model.quantizer=ddcm.quantize.{cls}",
        *([f"--model.quantizer.{inner}=ddcm.quantize.HardQuantizer"] if inner else []),
        *(f"--model.quantizer.{name}={value}" for name, value in settings.items()),
        *(f"--model.quantizer.{inner + '.init_args.' if inner else ''}{k}={v}" for k, v in SMALL.items()),
    ]


FIT_KINDS = {
    "hard-gradient": _options("HardQuantizer"),
    "hard-ema": _options("HardQuantizer", learn="ema"),
    "soft": _options("SoftQuantizer", final_temperature=0.05, anneal_steps=40),
    "residual": _options("ResidualQuantizer", inner="level", levels=3),
    "projected": _options("ProjectedQuantizer", inner="inner"),
}
