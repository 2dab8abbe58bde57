"""Pipelines on disk: a folder of diffusers with the codebook in it, and a model card."""

from pathlib import Path
from typing import Any

from ddcm.errors import UserError
from ddcm.quantize.pretrained import CARD, CONFIG, WEIGHTS, card_header
from ddcm.runtime.files import download, is_hub_name, resolve_model, write_atomically

FOLDER = "codebook"  # of a pipeline's folder


def find_codebook(backbone: str | Path) -> str | Path | None:
    """The codebook that comes with a backbone: in its folder or repository, or with the embedded one."""
    path = resolve_model(backbone)
    if not path.is_dir() and is_hub_name(str(backbone)):
        path = download("codebook", str(backbone), [f"{FOLDER}/{CONFIG}", f"{FOLDER}/{WEIGHTS}"])
    if (path / FOLDER / CONFIG).is_file():
        return path / FOLDER
    return "pocket-1024" if is_pocket(path) else None


def is_pocket(backbone: str | Path) -> bool:
    """Whether a backbone is the embedded one."""
    return resolve_model(backbone).resolve() == resolve_model("pocket").resolve()


def save_pipeline(pipe: Any, folder: Path) -> None:
    """As ``DDCMPipeline.save_pretrained``; the folder appears whole or not at all."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / "model_index.json").is_file()):
        raise UserError(f"{folder} is there and is not a pipeline: choose another name")
    with write_atomically(folder) as temporary:
        write_pipeline(pipe, temporary)


def write_pipeline(pipe: Any, folder: Path) -> None:
    pipe.backbone.save_files(folder)
    if pipe.codebook is not None:
        pipe.codebook.write(folder / FOLDER)
    header = card_header(pipe.backbone.name, ["audio", "audio-to-audio", "audioldm2"], "text-to-audio")
    (folder / CARD).write_text(f"""---
{header}
---
# {pipe.backbone.name} {"with a codebook" if pipe.codebook is not None else "for ddcm"}

```python
from ddcm import DDCMPipeline

pipe = DDCMPipeline.from_pretrained("THIS_FOLDER_OR_REPOSITORY")
pipe("rain on a roof").save("rain.wav")
```

The weights are those of {pipe.backbone.name}, and so is their licence.
""")
