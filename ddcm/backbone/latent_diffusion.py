"""A frozen latent diffusion model of AudioLDM2's kind. Its components are loaded by a ``Parts``."""

import gc
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args
from weakref import WeakKeyDictionary

import torch

from ddcm.audio.mel import MelSpec
from ddcm.backbone.base import Backbone, Condition, FeatureCache
from ddcm.backbone.hifigan import HifiGan2d
from ddcm.backbone.parts import Parts, digest_of, text_widths
from ddcm.backbone.unet import Context, UNetForward
from ddcm.backbone.vae import Autoencoder
from ddcm.errors import UserError, is_utf8
from ddcm.recipes import Dtype, Heads, Null
from ddcm.runtime.files import cache_dir, write_atomically

SCHEDULE = ("beta_start", "beta_end", "num_train_timesteps")  # settings of the noise schedule
CUT = 1  # skip connections above what a cache keeps; files with a cache depend on it, as on FULL_CALLS
NETWORKS = ("vae", "unet", "vocoder")
DIGESTS = ("latent_digest", "digest", "_unet_weights")
TEXT_LENGTHS = 64  # a compiled UNet pads texts to a multiple: nearly all prompts then share one shape


class FrozenBackbone(Backbone):
    """An AudioLDM2 with frozen weights; ``Backbone`` documents the methods.

    Args:
        parts: loads the components.
        name: hub name or folder, as the user gave it.
        device: where every network computes.
        dtype: of the UNet.
        vae_dtype: of the VAE and the vocoder.
        heads: head layout of the UNet, part of the digest. ``hub``: the head counts of the published config (8 in
            every block, as diffusers computes). ``original``: those of the trained network (channels / 32).
            ``ddcm inspect BACKBONE --check_heads AUDIO`` measures which one fits the weights.
        null: the condition of no prompt. ``trained``: zeros and T5(""), as in AudioLDM2's training. ``stock``:
            GPT2("") and T5(""), as in diffusers' pipeline.
        compiled: compile the UNet with static shapes, on a GPU as CUDA graphs. Each new shape takes minutes once,
            and results differ in the last bits.
        offload: only the network that computes is on the device, the others are in main memory.

    Raises UserError: an unknown option, a device that cannot be used, or ``offload`` of a compiled UNet.
    """

    def __init__(
        self, parts: Parts, name: str, device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32",
        vae_dtype: str | torch.dtype = "float32", heads: str = "hub", null: str = "trained", compiled: bool = False,
        offload: bool = False,
    ):  # fmt: skip
        dtype, vae_dtype = (str(each).removeprefix("torch.") for each in (dtype, vae_dtype))
        for flag, value, kind in (
            ("dtype", dtype, Dtype), ("vae_dtype", vae_dtype, Dtype), ("heads", heads, Heads), ("null", null, Null),
        ):  # fmt: skip
            if value not in get_args(kind):
                raise UserError(f"{flag} {value!r} is not known; use one of: {', '.join(get_args(kind))}")
        if compiled and offload:
            raise UserError("a compiled UNet stays on its device; use offload or compiled, not both")
        self.name, self.heads, self.null, self.device = name, heads, null, _resolve_device(device)
        self.dtype, self.vae_dtype = getattr(torch, dtype), getattr(torch, vae_dtype)
        self.parts, self._compiled, self._offload = parts, compiled, offload
        self._all_finite: dict[tuple[str, torch.dtype], torch.Tensor] = {}  # by part, on the device, since ``check``
        self._conditions: dict[str | None, Condition] = {}  # None: no prompt, as trained
        self._contexts: WeakKeyDictionary[Condition, Context] = WeakKeyDictionary()
        vae, vocoder, scheduler = (parts.configs[part] for part in ("vae", "vocoder", "scheduler"))
        self.scaling_factor: float = vae["scaling_factor"]
        self.latent_channels: int = vae["latent_channels"]
        rate, hop = vocoder["sampling_rate"], math.prod(vocoder["upsample_rates"])
        self.mel_spec = MelSpec(sample_rate=rate, hop=hop, n_mels=vocoder["model_in_dim"], fmax=rate / 2)
        # "scaled linear": the square roots of the betas are evenly spaced. DDIM itself is in ddcm.diffusion.solvers.
        start, end, steps = (scheduler[key] for key in SCHEDULE)
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64).square()
        self.alphas_cumprod = torch.cumprod(1 - betas, dim=0)

    # Components are loaded on first use: reconstruction loads no UNet, and no prompt loads no text encoder.

    def _load(self, part: str, dtype: torch.dtype) -> torch.nn.Module:
        # Module.to, not diffusers' own version, which warns of modules to keep in fp32 and names none.
        module = self.parts.make(part)
        if part == "vae" and not isinstance(module, Autoencoder):
            weights = module.state_dict()
            with torch.device("meta"):
                module = Autoencoder(self.parts.configs["vae"])
            module.load_state_dict(weights, assign=True)
        module = torch.nn.Module.to(module, self.device, dtype).eval().requires_grad_(False)
        # Channels last where it is faster (benchmarks.parts): half precision on a GPU, everything on a CPU.
        on_cpu, half = self.device.type == "cpu", dtype != torch.float32
        if part == "vocoder":
            module = HifiGan2d(module) if on_cpu or half else module
        elif half or on_cpu:
            module = torch.nn.Module.to(module, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if on_cpu and part != "unet":  # the UNet's weights are used where they are mapped
            module._apply(torch.clone)  # a single weight left in the mapped file keeps all of it in memory
            gc.collect()  # loading leaves reference cycles that hold the file, too
        return module

    @cached_property
    def vae(self) -> Any:  # an Autoencoder
        return self._load("vae", self.vae_dtype)

    @cached_property
    def vocoder(self) -> torch.nn.Module:
        return self._load("vocoder", self.vae_dtype)

    @cached_property
    def unet(self) -> Any:  # diffusers' module with a forward pass of our own
        module: Any = self._load("unet", self.dtype)
        if self.device.type == "cpu":  # the last layer: in this order its sums round to half the error
            torch.nn.Module.to(module.conv_out, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        module.forward = UNetForward(module)
        if self._compiled:  # in place: the module stays a diffusers one
            module.compile(dynamic=False, mode="reduce-overhead" if self.device.type == "cuda" else "default")
        return module

    def _ready(self, part: str) -> Any:
        """A network, on the device. With ``offload``, the others leave it first."""
        if self._offload:
            for other in NETWORKS:
                if other != part and other in self.__dict__:
                    torch.nn.Module.to(self.__dict__[other], "cpu")
        module = getattr(self, part)
        return torch.nn.Module.to(module, self.device) if self._offload else module

    def to(self, device: Any = None, dtype: Any = None, offload: bool | None = None) -> "FrozenBackbone":
        moved = FrozenBackbone(
            self.parts, self.name, self.device if device is None else device, self.dtype if dtype is None else dtype,
            self.vae_dtype, self.heads, self.null, self._compiled, self._offload if offload is None else offload,
        )  # fmt: skip
        moved.__dict__ |= {name: self.__dict__[name] for name in DIGESTS if name in self.__dict__}  # seconds of reading
        return moved

    def save_files(self, folder: Path) -> None:
        if not hasattr(self.parts, "copy_to"):
            return super().save_files(folder)
        self.parts.copy_to(folder)

    @property
    def unet_weights(self) -> int:
        return self.parts.count("unet")

    @cached_property
    def latent_digest(self) -> str:
        return digest_of(self.parts.digest("vae"), self.scaling_factor, self.mel_spec.to_dict())

    @cached_property
    def digest(self) -> str:
        return self.digest_with(self.heads)

    def digest_with(self, heads: str) -> str:
        schedule = [self.parts.configs["scheduler"][key] for key in SCHEDULE]
        return digest_of(self.latent_digest, self._unet_weights, heads, schedule)

    @cached_property
    def _unet_weights(self) -> str:
        return self.parts.digest("unet")

    # The contract.

    def posterior(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self._check_mel(mel)
        mean, deviation = self._ready("vae").encode(mel.to(self.device, self.vae_dtype))
        return _finite(mean, "VAE encoder"), deviation.float()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        z_raw = (z.to(self.device, torch.float32) / self.scaling_factor).to(self.vae_dtype)
        mel = self._ready("vae").decode(z_raw)
        if not z.requires_grad:
            return _finite(mel, "VAE decoder")
        self._note_finite(mel, "VAE decoder")
        return mel.float()

    def vocode(self, mel: torch.Tensor, dtype: str | None = None) -> torch.Tensor:
        self._check_mel(mel)
        chosen = self.vae_dtype if dtype is None else getattr(torch, dtype)
        vocoder = self._ready("vocoder") if chosen == self.vae_dtype else self._load("vocoder", chosen)
        audio = vocoder(mel[:, 0].to(self.device, chosen))
        # Transposed convolutions leave a tail beyond hop * T; there is no shift in front.
        return _finite(audio[:, : self.mel_spec.hop * mel.shape[2]], "vocoder")

    def eps(
        self, x: torch.Tensor, t: int | torch.Tensor, condition: Condition, cache: FeatureCache | None = None
    ) -> torch.Tensor:  # fmt: skip
        batch, rows = len(x), len(condition.generated)
        cut, deep = 0, None
        if cache is not None:
            assert isinstance(t, int), "a loop has one timestep for all"
            cut, deep = CUT, cache.start(t)
        if isinstance(t, int):  # filled on the device: a copy from the host would synchronise
            t = torch.full((batch,), t, device=self.device, dtype=torch.long)
        unet, context = self._ready("unet"), self._contexts.get(condition)
        if context is None:
            with torch.no_grad():
                context = unet.forward.read_condition(condition, self.dtype)
            self._contexts[condition] = context
        if self._compiled and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        t = t.to(self.device).expand(batch)
        noise, deep = unet(x.to(self.device, self.dtype), t, context, rows, cut, deep)
        if cache is not None:
            cache.features = deep.clone() if self._compiled else deep
        self._note_finite(noise, "UNet")
        return noise.to(torch.float32, copy=self._compiled)  # a CUDA graph writes its next result over this one

    def _note_finite(self, tensor: torch.Tensor, part: str) -> None:
        finite, key = torch.isfinite(tensor).all(), (part, tensor.dtype)
        self._all_finite[key] = finite & self._all_finite.get(key, finite)

    def check(self) -> None:
        noted, self._all_finite = self._all_finite, {}
        for key, finite in noted.items():
            if not finite:
                raise UserError(_not_finite(*key))

    def condition(self, prompt: str) -> Condition:
        if not is_utf8(prompt):
            raise UserError(f"prompt {prompt!r} is not text")
        if prompt not in self._conditions:
            self._conditions[prompt] = self._to_device(self.parts.encode(prompt, self.device))
        return self._conditions[prompt]

    def null_condition(self) -> Condition:
        if self.null == "stock":
            return self.condition("")
        if None not in self._conditions:
            text, mask = self._empty_text()
            generated = torch.zeros(1, 8, text_widths(self.parts.configs["unet"])[0])
            self._conditions[None] = self._to_device(Condition(generated, text, mask), zeros=True)
        return self._conditions[None]

    def extractor(self) -> dict[str, Any] | None:
        return self.parts.extractor()

    def clap_scores(self, audios: Sequence[torch.Tensor], prompt: str) -> list[float]:
        device = torch.device("cpu") if self._offload else self.device
        return self.parts.clap_scores(audios, self.mel_spec.sample_rate, prompt, device)

    def _empty_text(self) -> tuple[torch.Tensor, torch.Tensor]:
        """T5(""), cached on disk under the backbone's digest: 4 kB instead of a 1.4 GB text encoder."""
        from safetensors.torch import load_file, save_file

        path = cache_dir() / "null" / f"{self.digest}.safetensors"
        if not path.exists():
            text, mask = self.parts.encode_empty()
            with write_atomically(path) as temporary:
                save_file({"text": text.contiguous(), "mask": mask.contiguous()}, temporary)
        tensors = load_file(path)
        return tensors["text"], tensors["mask"]

    def _to_device(self, condition: Condition, zeros: bool = False) -> Condition:
        """``zeros``: whether ``generated`` is."""
        length = condition.text.shape[1]
        generated, text, mask = (x.to(self.device) for x in (condition.generated, condition.text, condition.mask))
        condition = Condition(generated, text, mask, ((zeros, length == 1),))
        return condition.pad_text(-(-length // TEXT_LENGTHS) * TEXT_LENGTHS) if self._compiled else condition

    def _check_mel(self, mel: torch.Tensor) -> None:
        bands = self.mel_spec.n_mels
        if mel.ndim != 4 or mel.shape[1] != 1 or mel.shape[3] != bands or mel.shape[2] % 4:
            raise ValueError(f"mel must be (B, 1, T, {bands}) with T a multiple of 4, not {tuple(mel.shape)}")


def _resolve_device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # torch without CUDA, a plugin that is missing
        raise UserError(f"device {name} cannot be used ({str(error).splitlines()[0]}); cpu always can") from error
    return device


def _finite(tensor: torch.Tensor, part: str) -> torch.Tensor:
    if not torch.isfinite(tensor).all():
        raise UserError(_not_finite(part, tensor.dtype))
    return tensor.float()


def _not_finite(part: str, dtype: torch.dtype) -> str:
    return f"the {part} gave NaN or infinity in {dtype}; use --dtype float32 or bfloat16"
