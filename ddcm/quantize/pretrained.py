"""Fitted codebooks on disk: an exported folder, or a Lightning checkpoint.

An exported folder has ``config.json`` (the quantizer and its latent space), ``model.safetensors`` and a short model
card. Only tensors and plain containers are unpickled from a checkpoint.
"""

import json
import pickle
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddcm.errors import UserError, describe_error
from ddcm.quantize.base import Quantizer
from ddcm.quantize.spec import from_spec, to_spec
from ddcm.runtime.files import download, is_hub_name, resolve_model, write_atomically

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PREFIX = "quantizer."  # of the weights' names in a Lightning checkpoint
MOST = 1 << 20  # bytes of config.json that are read
DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError,
           ArithmeticError, AssertionError, OSError, MemoryError, struct.error)  # fmt: skip
"""Errors that readers of a damaged or hostile file raise."""
LICENCES = {"pocket": "cc-by-sa-3.0", "cvssp/audioldm2": "cc-by-nc-sa-4.0"}  # start of a backbone's name -> licence
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle"}


@dataclass(frozen=True)
class Codebook:
    """A fitted quantizer in eval mode, and its latent space."""

    quantizer: Quantizer
    backbone_name: str
    """of the fit, for messages"""
    latent_digest: str
    """``Backbone.latent_digest`` of the latents of the fit"""
    config: dict[str, Any]
    """all of config.json"""

    def check(self, backbone) -> None:
        """Refuse a ``ddcm.backbone.Backbone`` with another latent space, which would decode the codes to noise. Raises
        UserError: another latent digest or another number of latent channels."""
        dim, channels = self.quantizer.embedding_dim, backbone.latent_channels
        if dim != channels:
            raise UserError(f"the codebook's atoms have {dim} numbers, {backbone.name}'s latents {channels}")
        if self.latent_digest != backbone.latent_digest:
            raise UserError(
                f"the codebook was fitted on {self.backbone_name} (latents {self.latent_digest}), this is "
                f"{backbone.name} (latents {backbone.latent_digest}): fit one with "
                f"python train.py fit -c configs/fit.yaml --model.backbone {backbone.name} --data.root AUDIO_DIR"
            )

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "Codebook":
        return load_codebook(name)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, model.safetensors and README.md; the folder appears whole or not at all."""
        folder = Path(folder)
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG).is_file()):
            raise UserError(f"{folder} is there and is not a codebook: choose another name")
        with write_atomically(folder) as temporary:
            self.write(temporary)

    def push_to_hub(self, repo_id: str, **options) -> str:
        """Upload as the model ``repo_id``; ``options`` go to ``HfApi.create_repo`` (private, token, ...)."""
        return push_folder(repo_id, self.write, **options)

    def write(self, folder: Path) -> None:
        """Write the files into a folder."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.quantizer.state_dict().items()}
        save_file(tensors, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(self.config, indent=2) + "\n")
        (folder / CARD).write_text(_card(self))


def push_folder(repo_id: str, write: Callable[[Path], None], **options: Any) -> str:
    """Upload what ``write(folder)`` writes as the model ``repo_id``; ``options`` go to ``HfApi.create_repo``."""
    from huggingface_hub import HfApi

    api = HfApi(token=options.pop("token", None))
    api.create_repo(repo_id, repo_type="model", exist_ok=True, **options)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder))


def card_header(backbone_name: str, tags: list[str], pipeline_tag: str | None = None) -> str:
    """The YAML header of a model card: licence and base model as far as the backbone's name says them."""
    from huggingface_hub import ModelCardData

    is_embedded = resolve_model(backbone_name).resolve() == resolve_model("pocket").resolve()
    licence = next((value for name, value in LICENCES.items() if backbone_name.startswith(name)), "unknown")
    data: dict[str, Any] = {
        "library_name": "ddcm",
        "license": LICENCES["pocket"] if is_embedded else licence,
        "tags": tags,
    }
    if is_hub_name(backbone_name):
        data["base_model"] = backbone_name
    return ModelCardData(pipeline_tag=pipeline_tag, **data).to_yaml()


def describe(quantizer: Quantizer, backbone_name: str, latent_digest: str, mel_spec: dict) -> dict[str, Any]:
    """The entries of config.json, also kept in Lightning checkpoints: JSON-able, nothing to unpickle."""
    entries = {"format": FORMAT, "quantizer": to_spec(quantizer), "backbone": backbone_name}
    return entries | {"latent_digest": latent_digest, "mel_spec": mel_spec}


def save_codebook(
    folder: str | Path, quantizer: Quantizer, backbone_name: str, latent_digest: str, mel_spec: dict, extra: dict
) -> None:
    """Export a quantizer. ``extra``, such as metrics of the fit, is kept under ``fit`` in config.json."""
    config = {**describe(quantizer, backbone_name, latent_digest, mel_spec), "fit": extra}
    Codebook(quantizer, backbone_name, latent_digest, config).save_pretrained(folder)


def load_codebook(name: str | Path) -> Codebook:
    """A codebook by exported folder, hub name or Lightning ``.ckpt``; frozen, in eval mode, on the CPU. Raises
    UserError: not found, damaged, of an unknown class, or a pickle."""
    path = resolve_model(str(name))
    if not path.is_dir() and path.suffix in PICKLES:
        raise UserError(f"{name}: pickles are not read, they can run code; give an exported folder or a .ckpt")
    if path.is_file():
        path = path if path.suffix == ".ckpt" else path.parent
    elif not path.is_dir():
        if not is_hub_name(str(name)) or path.suffix == ".ckpt":
            raise UserError(f"codebook {name} is neither a folder, nor a .ckpt file, nor a hub name")
        path = download("codebook", str(name), [CONFIG, WEIGHTS])
    return _build(path, *(_read_folder(path) if path.is_dir() else _read_fit(path)))


def _read_folder(folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """config.json and the weights of an exported folder."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for part in (CONFIG, WEIGHTS):
        if not (folder / part).is_file():
            raise UserError(f"{folder} is not a codebook: {part} is missing")
    try:
        with open(folder / CONFIG, "rb") as file:
            return json.loads(file.read(MOST)), load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS} is not a safetensors file (a pickle, or damaged): refused") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder / CONFIG} is not JSON") from error
    except OSError as error:
        raise UserError(f"{folder}: {describe_error(error)}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The entries of a ``.ckpt`` of Lightning. Nothing that it names is imported or opened. Raises UserError: no such
    file, damaged, or it holds more than plain tensors and containers, such as a tensor that claims more numbers than
    the file has."""
    refused = f"{path} is damaged, holds more than tensors, or is no checkpoint of python train.py fit: refused"
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\3\4":  # torch reads other files as plain pickles
                raise UserError(refused)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(checkpoint, dict) and all(map(_is_stored, list_tensors(checkpoint))):
            return checkpoint
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except DAMAGED as error:  # a UserError is a ValueError, too
        raise UserError(refused) from error
    raise UserError(refused)


def list_tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in containers, which may contain themselves."""
    tensors, queue, seen = [], [value], set()
    while queue:
        item = queue.pop()
        if isinstance(item, torch.Tensor):
            tensors.append(item)
        elif isinstance(item, dict | list | tuple | set) and id(item) not in seen:
            seen.add(id(item))
            queue += [*item, *item.values()] if isinstance(item, dict) else item
    return tensors


def _is_stored(tensor: torch.Tensor) -> bool:
    """Whether all numbers of a tensor are in memory, as those of expanded, sparse or meta tensors are not."""
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _read_fit(path: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Description and weights of the codebook in a checkpoint of a fit."""
    checkpoint = read_checkpoint(path)
    state = checkpoint.get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{path} is no checkpoint of python train.py fit, or damaged: it has no state_dict")
    return checkpoint.get("ddcm"), {n.removeprefix(PREFIX): state[n] for n in state if n.startswith(PREFIX)}


def _build(source: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Codebook:
    try:
        stored = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()
        }  # may be shared
        numbers = min(sum(stored.values()), sum(tensor.numel() for tensor in tensors.values()))
        quantizer = from_spec(config["quantizer"], numbers)
        quantizer.load_state_dict(tensors)
        backbone, digest = config["backbone"], config["latent_digest"]
        if not isinstance(backbone, str) or not isinstance(digest, str):
            raise TypeError("names are text")
        finite = all(tensor.isfinite().all() for tensor in quantizer.state_dict().values())
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except DAMAGED as error:
        raise UserError(f"{source}: config and weights of the codebook do not fit together") from error
    if not finite:
        raise UserError(f"{source}: NaN or infinite numbers in the codebook")
    return Codebook(quantizer.eval().requires_grad_(False), backbone, digest, config)


def _card(codebook: Codebook) -> str:
    from jinja2 import Environment, PackageLoader

    templates = Environment(loader=PackageLoader("ddcm.quantize"), trim_blocks=True, keep_trailing_newline=True)
    quantizer, metrics = codebook.config["quantizer"], codebook.config.get("fit", {})
    header = card_header(codebook.backbone_name, ["audio", "vector-quantization", "audioldm2"])
    values = {
        "header": header,
        "codebook": codebook,
        "quantizer": quantizer,
        "options": json.dumps(quantizer["config"]),
    }
    return templates.get_template("card.md").render(metrics=metrics, **values)
