"""The contract of quantizers."""

import inspect
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Quantized:
    """Result of a quantizer on latents z (B, D, *spatial)."""

    z: torch.Tensor
    """(B, D, *spatial), the quantised latent. In training its gradients go to the input, past the codebook."""
    codes: torch.Tensor
    """int64, the atom of each cell: (B, *spatial), or (B, num_quantizers, *spatial) where that is more than one."""
    z_q_codebook: torch.Tensor
    """(B, D, *spatial), the same values. In training its gradients go to the codebook, not to the input."""
    losses: dict[str, torch.Tensor] = field(default_factory=dict)
    """Weighted scalars to add up: ``codebook``, ``commitment`` and others of the quantizer."""
    perplexity: torch.Tensor | None = None
    """exp(entropy of the atoms' frequencies in this batch), in [1, K]; of several quantizers: of their mean entropy. In
    training over all ranks."""
    usage: torch.Tensor | None = None
    """Share of the K atoms that this batch used at least once, in [0, 1]; ranks and quantizers as for perplexity."""
    metrics: dict[str, torch.Tensor] = field(default_factory=dict)
    """Further values to log, such as ``temperature``."""


class Quantizer(nn.Module):
    """Maps each cell (the D numbers at one spatial position) to the codebook.

    ``encode(z) -> codes``, ``decode(codes) -> z``, ``forward(z) -> Quantized``. In eval mode ``forward(z).z`` equals
    ``decode(encode(z))`` bit for bit, except for soft quantizers, which return mixtures. Distances are computed in
    float32 whatever the dtype of z; the result has the dtype of z.
    """

    codebook_size: int
    """K, atoms of each quantizer."""
    embedding_dim: int
    """D, numbers in a cell."""
    num_quantizers: int = 1
    """Codes of a cell: more than one for residual and product quantizers."""
    initialised: torch.Tensor
    """1 once the codebook was started from real latents; part of the state. Older states lack it: theirs was."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initialised", torch.zeros((), dtype=torch.uint8))

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        state_dict.setdefault(f"{prefix}initialised", torch.ones((), dtype=torch.uint8))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _apply(self, fn, recurse=True):
        """Atoms and statistics stay in float32, whatever casts the model: a step of Adam is below half precision."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, recurse)

    def encode(self, z: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def initialise(self, cells: torch.Tensor, seed: int = 0) -> None:
        """Start the codebook from cells (N, D) of real latents, the same cells on every rank."""
        raise NotImplementedError

    @property
    def atoms(self) -> torch.Tensor | None:
        """(K, D), the atoms of cells as they are; None where there are several codebooks, or a change before them."""
        return None

    @property
    def level_atoms(self) -> torch.Tensor | None:
        """(num_quantizers, K, D): ``decode`` adds up one atom of each level. None where it does something else."""
        return None

    def atom_usage(self) -> torch.Tensor | None:
        """Share of each atom in the codes of training, (num_quantizers, K); None where it is not tracked."""
        return None

    @property
    def config(self) -> dict:
        """Constructor arguments: ``type(q)(**q.config)`` has the same shape. JSON-able except for inner quantizers.

        They are read from attributes of the arguments' names, those of base classes first.
        """
        classes = [
            cls for cls in reversed(type(self).__mro__) if issubclass(cls, Quantizer) and "__init__" in vars(cls)
        ]
        parameters = [p for cls in classes for p in inspect.signature(cls).parameters.values()]
        return {p.name: getattr(self, p.name) for p in parameters if p.kind is not p.VAR_KEYWORD}


def to_cells(z: torch.Tensor, dim: int) -> torch.Tensor:
    """z (B, D, *spatial) -> cells (N, D), float32."""
    if z.ndim < 2 or z.shape[1] != dim:
        raise ValueError(f"the codebook has atoms of {dim} numbers; the latent is {tuple(z.shape)}")
    return z.movedim(1, -1).reshape(-1, dim).float()


def from_cells(cells: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """cells (N, D) -> (B, D, *spatial) with the batch, the spatial shape and the dtype of ``like``."""
    return cells.reshape(like.shape[0], *like.shape[2:], cells.shape[-1]).movedim(-1, 1).to(like.dtype)
