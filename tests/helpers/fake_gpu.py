"""A GPU that is not there: its tensors have shapes, dtypes and a device, but no values (torch's ``FakeTensorMode``).

Tensors on the CPU stay real. A sum of both devices' tensors raises, as on a GPU. What would make the host wait for the
device is recorded and answered with made-up values, so that the work goes on.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, repeat
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PACKAGE = Path(__file__).parents[2] / "ddcm"
aten = torch.ops.aten
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._unsafe_index)


class FakeGpu(TorchDispatchMode):
    """Inside, ``cuda`` is a device without values.

    Args:
        found: how many elements ``nonzero`` finds, in every tensor.
    """

    def __init__(self, found: int = 0):
        super().__init__()
        self.found, self.regions, self._counting, self._answers = found, 0, False, 0
        self.questions: Counter[str] = Counter()
        """what waited in the regions of ``count``: ``read`` or ``upload``, and the function of ddcm that asked"""
        self._fake, self._entered = FakeTensorMode(allow_non_fake_inputs=True), ExitStack()

    def __enter__(self):
        for where, name, ours in ((nn.Module, "_apply", _move), (torch.Tensor, "backward", _backward),
                                  (torch.autograd, "grad", _grad)):  # fmt: skip
            self._entered.enter_context(mock.patch.object(where, name, ours))
        self._entered.enter_context(self._fake)
        return super().__enter__()

    def __exit__(self, *reason):
        super().__exit__(*reason)
        self._entered.close()

    @contextmanager
    def count(self) -> Iterator[None]:
        """A loop or a training step: what waits inside is recorded."""
        self._counting, self.regions = True, self.regions + 1
        try:
            yield
        finally:
            self._counting = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function.overloadpacket
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        on_gpu = any(isinstance(x, FakeTensor) for x in tensors)
        target = kwargs.get("device")
        if not on_gpu and (target is None or torch.device(target).type == "cpu"):
            with unset_fake_temporarily():
                return function(*args, **kwargs)
        if name is aten._local_scalar_dense:
            self._ask("read")
            self._answers += 1  # rises, as the atoms of a set do
            return True if args[0].dtype == torch.bool else self._answers
        if name in (aten.nonzero, aten.bincount):  # the size of the result is a number of the device
            self._ask("read")
            shape = (self.found, args[0].ndim) if name is aten.nonzero else (args[2],)
            return torch.zeros(shape, dtype=torch.long, device="cuda")
        if name is aten._to_copy and on_gpu and target is not None and torch.device(target).type == "cpu":
            self._ask("read")
            return _invent(args[0].shape, kwargs.get("dtype") or args[0].dtype)
        if name is aten.copy_ and args[0].device.type != args[1].device.type:
            self._ask("upload" if args[0].device.type == "cuda" else "read", (*args, False)[2])
        elif name is aten._to_copy and not on_gpu:
            self._ask("upload", kwargs.get("non_blocking", False))
        elif name in INDEXING:
            indices = [x for x in args[1] if x is not None]
            if any(x.dtype == torch.bool for x in indices):
                self._ask("read")  # which rows: a number of the device
                return args[0].new_zeros(self.found) if name is aten.index else args[0]
            if any(x.device.type == "cpu" and x.ndim for x in indices):
                self._ask("upload")
        return function(*args, **kwargs)

    def _ask(self, kind: str, without_waiting: bool = False) -> None:
        if not self._counting or without_waiting:
            return
        frame = sys._getframe()
        while frame and not Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            frame = frame.f_back
        code = frame and frame.f_code
        where = f"{Path(code.co_filename).relative_to(PACKAGE)} {code.co_name}" if code else "outside"
        self.questions[f"{kind} {where}"] += 1


def _invent(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Real values for what a GPU would have answered: uniform, or rising where they are whole numbers."""
    with unset_fake_temporarily():
        if dtype.is_floating_point:
            return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        return torch.arange(shape.numel()).reshape(shape).to(dtype)


def _move(module: nn.Module, fn, recurse: bool = True) -> nn.Module:
    """``Module._apply``, which cannot exchange the tensors of a module between devices of different kinds."""
    for child in module.children() if recurse else ():
        _move(child, fn)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(fn(parameter.detach()), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = fn(buffer)
    return module


def _differentiate(output: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(leaf, gradient) by a walk over the nodes: torch's engine asks the driver for the streams of a device."""
    waiting: Counter = Counter()
    seen, stack = {output.grad_fn}, [output.grad_fn]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None:
                waiting[node] += 1
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
    leaves, gradients, ready = [], {output.grad_fn: {0: torch.ones_like(output)}}, [output.grad_fn]
    while ready:
        node = ready.pop()
        slots = gradients.pop(node, {})
        if hasattr(node, "variable"):
            leaves += [(node.variable, gradient) for gradient in slots.values()]
            continue
        arguments = [slots.get(number) for number in range(len(node._input_metadata))]
        results = getattr(node, "apply", node)(*arguments) if slots else ()
        results = results if isinstance(results, tuple) else (results,)
        for (following, slot), gradient in zip(node.next_functions, chain(results, repeat(None)), strict=False):
            if following is None:
                continue
            if gradient is not None:
                gradient = gradient.sum_to_size(following._input_metadata[slot].shape)  # as the engine does
                others = gradients.setdefault(following, {})
                others[slot] = gradient if slot not in others else others[slot] + gradient
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)
    return leaves


def _backward(loss: torch.Tensor) -> None:
    with torch.no_grad():
        for leaf, gradient in _differentiate(loss):
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


def _grad(output: torch.Tensor, leaf: torch.Tensor) -> tuple[torch.Tensor]:
    with torch.no_grad():
        return (next(gradient for other, gradient in _differentiate(output) if other is leaf),)
