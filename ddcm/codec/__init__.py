"""The codec: a recording as the choices of noise that lead a frozen denoiser to it.

Denoising Diffusion Codebook Models (arXiv 2502.01189), with the selection of Turbo-DDCM (arXiv 2511.06424). What each
file does, and in which order a call goes through them: docs/steps.md.
"""
