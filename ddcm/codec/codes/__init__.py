"""Codes of a fitted codebook: which are chosen, how likely they are, and their bytes (modes vq and hybrid)."""
