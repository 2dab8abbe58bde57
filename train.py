"""Fit a codebook: ``python train.py fit -c configs/fit.yaml --data.root AUDIO_DIR`` (see configs/fit.yaml)."""

from ddcm.fit.cli import main

if __name__ == "__main__":
    main()
