"""The codec: a recording as the choices of noise that lead a frozen denoiser to it.

Denoising Diffusion Codebook Models (arXiv 2502.01189), with the selection of Turbo-DDCM (arXiv 2511.06424).

    codec_settings     how a recording is compressed
    step_schedule      timesteps and atoms of each step: integers, no torch
    header, format     what a file records, and its bytes; facts of a file, for ``ddcm inspect``
    rate_control       a rate -> a schedule, from measurements (schedules.json)
    noise_codebooks    gaussian, hadamard
    selection          turbo, classic: which atoms to take, and their bits
    trajectory         the denoising loop, encoding and decoding
    vq                 codes of a fitted codebook, entropy coded
    coder              latents -> payload, payload -> latents
    compress           audio -> file
    decompress         file -> audio
    generate           compressed generation
"""
