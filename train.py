"""Fit a codebook: ``python train.py fit -c configs/fit.yaml --data.root AUDIO_DIR`` (see configs/fit.yaml)."""

import sys

from ddcm.cli.fit import run

if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
