"""The codec: a recording as the choices of noise that lead a frozen denoiser to it.

Denoising Diffusion Codebook Models (arXiv 2502.01189), with the selection of Turbo-DDCM (arXiv 2511.06424).

    curve, layout     the schedule and the windows of a stream: integers, no torch
    books             noise codebooks: gaussian, hadamard
    turbo, classic    which atoms to take, and their bits
    trajectory        the denoising loop, encoding and decoding
    vq                codes of a fitted codebook, entropy coded
    plan              a rate -> a schedule, from measurements (schedules.json)
    sound             audio -> windows of z, windows of z -> audio, piece by piece
    encode, decode    audio -> file, file -> audio
    guided            compressed generation
"""
