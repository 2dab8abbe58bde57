"""Pack a collection's latents for fitting where the audio is not:

python -m ddcm.fit.data.pack AUDIO_DIR OUT_DIR
ddcm fit -c fit.yaml --data ddcm.fit.data.StreamedLatents --data.root OUT_DIR_OR_URL
"""

import io
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ddcm.errors import UserError, describe_error
from ddcm.fit.data.cache import load_frozen_backbone
from ddcm.fit.data.latent_data import LatentData, Windows
from ddcm.fit.data.streaming import FORMAT, INDEX
from ddcm.runtime.exit import run_to_exit_code
from ddcm.runtime.files import write_atomically

MIN_TARS = 16  # of the training split, if it has as many windows: each reader needs one of its own


def pack(
    root: str, out: str, backbone: str = "pocket", cache_dir: str | None = None, window_frames: int = 64,
    windows_per_tar: int = 512, device: str = "cpu", seed: int = 0,
) -> None:  # fmt: skip
    """Encode a collection (through the cache, like a fit) and pack its windows into tar files with an index.

    The training windows are shuffled once here. Each tar file is then a sample of the whole collection, and a fit needs
    no shuffle buffer.

    Args:
        root: a folder of audio, or a .csv with a column ``path`` and perhaps ``split``.
        out: folder to write; it appears whole or not at all, and must not exist.
        backbone: hub name or folder of the backbone.
        cache_dir: folder of the encoded latents; by default ``$DDCM_CACHE`` or ``~/.cache/ddcm``.
        window_frames: latent frames in a window, 25 to a second. A fit from the tar files cannot change it.
        windows_per_tar: 512 of 64 frames are 8 MB, which each reading process of a fit holds in memory.
        device: to encode on.
        seed: of the order.

    Raises UserError: ``out`` exists, or an error of ``encode_all`` or ``read_manifest``.
    """
    if Path(out).exists():
        raise UserError(f"{out} exists; give another folder or remove it")
    if windows_per_tar < 1 or window_frames < 1:
        raise UserError("--windows_per_tar and --window_frames are at least 1")
    data = LatentData(root, backbone, cache_dir, window_frames=window_frames)
    data.device_without_trainer = device
    splits: dict[str, Windows] = data.load_datasets()
    shortest = min(windows.window_frames for windows in splits.values())
    if any(windows.window_frames > shortest for windows in splits.values()):
        raise UserError(f"a split is shorter than a window; use --window_frames {shortest} or more audio")
    latents, frozen = splits["train"].latents, load_frozen_backbone(backbone, device)
    shape, spec = [latents.channels, shortest, latents.bands], frozen.mel_spec.to_dict()
    index = {"format": FORMAT, "latent_digest": frozen.latent_digest, "backbone": backbone, "mel": spec, "shape": shape}
    try:
        with write_atomically(Path(out)) as temporary:
            temporary.mkdir()
            index["tars"] = {
                name: _write_split(splits[name], temporary, name, windows_per_tar, seed) for name in splits
            }
            (temporary / INDEX).write_text(json.dumps(index, indent=1))
    except OSError as error:
        raise UserError(f"cannot write {out} ({describe_error(error)}); nothing of it was kept") from error


def _write_split(windows: Windows, folder: Path, split: str, per_tar: int, seed: int) -> dict[str, int]:
    """Write a split's tar files; return the number of windows in each."""
    from webdataset import TarWriter

    order = torch.arange(len(windows))
    if split == "train":
        order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed % 2**63))
        per_tar = max(1, min(per_tar, len(windows) // MIN_TARS))
    tars = {}
    for number, chosen in enumerate(tqdm(order.split(per_tar), desc=f"packing {split}", unit="tar")):
        name = f"{split}-{number:05d}.tar"
        with open(folder / name, "wb") as file, TarWriter(file, encoder=False) as tar:
            for item in chosen.tolist():
                member = io.BytesIO()
                np.save(member, windows[item]["z"].numpy().astype(np.float16), allow_pickle=False)
                tar.write({"__key__": f"{item:08d}", "npy": member.getvalue()})
        tars[name] = len(chosen)
    return tars


def main(args: list[str] | None = None) -> None:
    """The command. A UserError is one line on stderr and exit code 2."""
    from jsonargparse import auto_cli

    if code := run_to_exit_code(lambda: "error", lambda: auto_cli(pack, args=args, as_positional=True) or 0):
        raise SystemExit(code)


if __name__ == "__main__":
    main()
