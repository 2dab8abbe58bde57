"""Fitting a codebook on the latents of a frozen backbone. Needs the ``train`` extra (Lightning)."""
