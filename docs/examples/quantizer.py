"""A quantizer of one's own: product quantisation (Jegou et al. 2011), where each part of a cell has its own codebook.

    python train.py fit -c configs/fit.yaml --data.root examples \
        --model.quantizer docs.examples.quantizer.ProductQuantizer --trainer.default_root_dir runs/product
    python docs/examples/quantizer.py reconstruct examples/bird.flac -o out/product.wav --recipe quantised \
        --codebook runs/product/codebook

A codebook's folder names its class and never a file to import, so whatever reads it imports this file first: the
second command is ``ddcm`` with this class known.
"""

from __future__ import annotations

import torch
from torch import nn

from ddcm.quantize import HardQuantizer, Quantized, Quantizer


class ProductQuantizer(Quantizer):
    """Codes (B, parts, *spatial): ``parts`` codebooks of K atoms make K ** parts different cells.

    Args:
        codebook_size: K, atoms of each part.
        embedding_dim: D, numbers in a cell; ``parts`` divides it.
        parts: how many.
        commitment: weight of the commitment term.
    """

    def __init__(self, codebook_size: int = 256, embedding_dim: int = 8, parts: int = 2, commitment: float = 0.25):
        super().__init__()
        if embedding_dim % parts:
            raise ValueError(f"parts {parts} does not divide embedding_dim {embedding_dim}")
        self.codebook_size, self.embedding_dim, self.num_quantizers = codebook_size, embedding_dim, parts
        self.commitment = commitment
        self.books = nn.ModuleList(
            HardQuantizer(codebook_size, embedding_dim // parts, commitment) for _ in range(parts)
        )

    @property
    def config(self) -> dict:
        names = ("codebook_size", "embedding_dim", "commitment")
        return {name: getattr(self, name) for name in names} | {"parts": self.num_quantizers}

    def initialise(self, cells: torch.Tensor, seed: int = 0) -> None:
        for number, (book, part) in enumerate(zip(self.books, cells.chunk(self.num_quantizers, dim=1), strict=True)):
            book.initialise(part.contiguous(), seed + number)

    def encode(self, z: torch.Tensor) -> torch.Tensor:
        parts = zip(self.books, z.chunk(self.num_quantizers, dim=1), strict=True)
        return torch.stack([book.encode(part) for book, part in parts], dim=1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.cat([book.decode(c) for book, c in zip(self.books, codes.unbind(dim=1), strict=True)], dim=1)

    def forward(self, z: torch.Tensor) -> Quantized:
        found = [book(part) for book, part in zip(self.books, z.chunk(self.num_quantizers, dim=1), strict=True)]
        return Quantized(
            z=torch.cat([one.z for one in found], dim=1),
            codes=torch.stack([one.codes for one in found], dim=1),
            z_q_codebook=torch.cat([one.z_q_codebook for one in found], dim=1),
            losses={name: torch.stack([one.losses[name] for one in found]).mean() for name in found[0].losses},
            perplexity=torch.stack([one.perplexity for one in found]).log().mean().exp(),
            usage=torch.stack([one.usage for one in found]).mean(),
        )


if __name__ == "__main__":
    from ddcm.cli.main import main

    raise SystemExit(main())
