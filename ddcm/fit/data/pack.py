"""Pack a collection's latents for fitting where the audio is not:

python -m ddcm.fit.data.pack AUDIO_DIR OUT_DIR
python train.py fit -c configs/fit.yaml --data ddcm.fit.data.StreamedLatents --data.root OUT_DIR_OR_URL
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ddcm.errors import UserError, describe_error
from ddcm.fit.backbone import frozen_backbone
from ddcm.fit.data.module import LatentData, Windows
from ddcm.fit.data.packed import FORMAT, INDEX
from ddcm.runtime.files import write_atomically

TARS_AT_LEAST = 16  # of the training split, where it has as many windows: each reader needs one of its own


def pack(
    root: str,
    out: str,
    backbone: str = "checkpoints/pocket",
    cache_dir: str | None = None,
    window_frames: int = 64,
    windows_per_tar: int = 512,
    device: str = "cpu",
    seed: int = 0,
) -> None:
    """Encode a collection (through the cache, like a fit) and pack its windows into tar files with an index.

    Training windows are shuffled over the whole collection here, once: a tar file is then a fair sample of
    all, and a fit needs no buffer to mix them.

    Args:
        root: a folder of audio, or a .csv with a column ``path`` and perhaps ``split``.
        out: folder to write; it appears whole or not at all, and must not exist.
        backbone: hub name or folder of the backbone.
        cache_dir: where encoded latents are kept; by default ``$DDCM_CACHE`` or ``~/.cache/ddcm``.
        window_frames: latent frames in a window, 25 to a second. A fit from the tar files cannot change it.
        windows_per_tar: 512 of 64 frames are 8 MB; what a fit holds in memory for each reading process.
        device: to encode on.
        seed: of the order.

    Raises:
        UserError: ``out`` exists, or what ``encode_all`` and ``read_manifest`` raise.
    """
    if Path(out).exists():
        raise UserError(f"{out} exists; give another folder or remove it")
    if windows_per_tar < 1 or window_frames < 1:
        raise UserError("--windows_per_tar and --window_frames are at least 1")
    data = LatentData(root, backbone, cache_dir, window_frames=window_frames)
    data.encode_on = device
    data.setup("fit")
    if len({windows.window_frames for windows in data.windows.values()}) > 1:
        shortest = min(windows.window_frames for windows in data.windows.values())
        raise UserError(f"a split is shorter than a window; use --window_frames {shortest} or more audio")
    latents = data.windows["train"].latents
    frozen = frozen_backbone(backbone, device)
    index = {
        "format": FORMAT,
        "latent_digest": frozen.latent_digest,
        "backbone": backbone,
        "mel": frozen.mel_spec.to_dict(),
        "shape": [latents.channels, data.windows["train"].window_frames, latents.bands],
    }
    try:
        with write_atomically(Path(out)) as temporary:
            temporary.mkdir()
            index["tars"] = {
                split: _write_split(windows, temporary, split, windows_per_tar, seed)
                for split, windows in data.windows.items()
            }
            (temporary / INDEX).write_text(json.dumps(index, indent=1))
    except OSError as error:
        raise UserError(f"cannot write {out} ({describe_error(error)}); nothing of it was kept") from error


def _write_split(windows: Windows, folder: Path, split: str, per_tar: int, seed: int) -> dict[str, int]:
    from webdataset import TarWriter

    order = torch.arange(len(windows))
    if split == "train":
        order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed % 2**63))
        per_tar = max(1, min(per_tar, len(windows) // TARS_AT_LEAST))
    tars = {}
    for number, chosen in enumerate(tqdm(order.split(per_tar), desc=f"packing {split}", unit="tar")):
        name = f"{split}-{number:05d}.tar"
        with open(folder / name, "wb") as file, TarWriter(file, encoder=False) as tar:
            for place in chosen.tolist():
                member = io.BytesIO()
                np.save(member, windows[place]["z"].numpy().astype(np.float16), allow_pickle=False)
                tar.write({"__key__": f"{place:08d}", "npy": member.getvalue()})
        tars[name] = len(chosen)
    return tars


def main(args: list[str] | None = None) -> None:
    """The command; what the user can mend is one line on stderr and exit code 2."""
    from jsonargparse import auto_cli

    try:
        auto_cli(pack, args=args, as_positional=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
