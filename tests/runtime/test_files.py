"""Files that come with the project, and names that stand for them."""

from pathlib import Path

import pytest

from ddcm.backbone import load as load_backbone
from ddcm.errors import UserError
from ddcm.quantize.pretrained import load_codebook
from ddcm.runtime import files
from ddcm.runtime.files import RESERVED, resolve_model, resolve_shipped
from tests.conftest import ROOT


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("spelling", ["reserved", "path"])
def test_a_model_that_comes_with_the_project_is_never_asked_of_the_hub(name, spelling, tmp_path, attempts, monkeypatch):
    """A folder that is called so does not stand for it; without the package's files the name is refused."""
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model(name) == resolve_model(RESERVED[name]) == ROOT / RESERVED[name]
    assert resolve_shipped(name) == Path(name)
    monkeypatch.setattr(files, "_shipped_folder", lambda: tmp_path / "nothing")
    for load in (load_backbone, load_codebook):
        with pytest.raises(UserError, match=name):
            load(name if spelling == "reserved" else RESERVED[name])
    assert attempts == []
