"""A file from elsewhere brings data: no reader imports, fetches or opens what it names."""

import json
import shutil

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.backbone.tiny import tiny_backbone
from ddcm.cli.info import collect_facts
from ddcm.errors import UserError
from ddcm.fit.data.cache import encode_all
from ddcm.fit.data.manifest import Entry, read_manifest
from ddcm.pipeline import DDCMPipeline
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import load_codebook, save_codebook
from tests.conftest import EXAMPLES, ROOT

NAMES = ("evilmod:run", "evilmod.run", "evil-org/evil-repo", "hf://evil-org/evil-repo", "http://evil.example/x")


@pytest.fixture
def codebook(tmp_path):
    backbone = tiny_backbone()
    spec = backbone.mel_spec.to_dict()
    save_codebook(tmp_path / "c", HardQuantizer(16), backbone.name, backbone.latent_digest, spec, {})
    return tmp_path / "c"


def rewrite(path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", NAMES)
def test_names_in_an_exported_folder_are_text(codebook, attempts, name):
    extra = {"backbone": name, "auto_map": {"AutoModel": name}, "_class_name": name, "hyper_parameters": {"x": name}}
    rewrite(codebook / "config.json", lambda config: config.update(extra))
    assert load_codebook(codebook).backbone_name == name and collect_facts(str(codebook))
    DDCMPipeline.from_pretrained("tiny", codebook)
    assert attempts == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["class", "inner", "option"])
def test_classes_in_an_exported_folder_are_ours_or_refused(codebook, attempts, name, place):
    def change(config):
        if place == "class":
            config["quantizer"]["class"] = name
        elif place == "inner":
            inner = {"class": name, "config": {}}
            config["quantizer"] = {"class": "ProjectedQuantizer", "config": {"inner": inner, "embedding_dim": 8}}
        else:
            config["quantizer"]["config"]["gradient"] = name

    rewrite(codebook / "config.json", change)
    with pytest.raises(UserError, match=str(codebook)):
        load_codebook(codebook)
    assert attempts == []


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_manifest_are_files(tmp_path, attempts, name):
    (tmp_path / "m.csv").write_text(f"path,backbone,split\n{name},{name},train\n")
    (entry,) = read_manifest(tmp_path / "m.csv")
    assert entry.path == tmp_path / name and not entry.path.exists()
    with pytest.raises(UserError, match="none of 1 files could be read"):
        encode_all([entry], tiny_backbone(), tmp_path / "cache")
    assert attempts == []


@pytest.mark.parametrize("name", NAMES)
def test_a_cache_names_nothing(tmp_path, attempts, name):
    entries = [Entry(EXAMPLES / "bird.flac", "bird.flac")]
    first = encode_all(entries, tiny_backbone(), tmp_path)
    for path in tmp_path.rglob("*.json"):
        rewrite(path, lambda content: content.update({"path": name, "backbone": name, "class_path": name}))
    assert (encode_all(entries, tiny_backbone(), tmp_path).spans == first.spans).all() and attempts == []


@pytest.mark.parametrize("name", [*NAMES, "../train-0.tar", "/etc/passwd", "pipe:touch x"])
@pytest.mark.parametrize("place", ["file", "backbone"])
def test_an_index_of_packed_latents_names_its_tar_files_alone(tmp_path, attempts, name, place):
    pytest.importorskip("webdataset")
    from ddcm.fit.data.streaming import read_index

    index = {"format": 1, "latent_digest": "0" * 16, "backbone": name, "mel": {}, "shape": [8, 4, 16]}
    train = {name if place == "file" else "train-00000.tar": 3}
    (tmp_path / "index.json").write_text(json.dumps(index | {"tars": {"train": train, "val": {"val-00000.tar": 1}}}))
    if place == "file":
        with pytest.raises(UserError, match="names a file"):
            read_index(str(tmp_path))
    else:
        assert read_index(str(tmp_path)).tars["train"] == train
    assert attempts == []


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_in_a_ddcm_file_is_a_prompt(attempts, name):
    pipeline = DDCMPipeline.from_pretrained("tiny")
    data = pipeline.compress(torch.sin(torch.arange(8000.0) / 7), 16000, prompt=name, kbps=0.5)
    assert len(pipeline.decompress(data).audio) and attempts == []


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_a_tokenizer_brings_no_code(tmp_path, attempts, part, monkeypatch):
    transformers = pytest.importorskip("transformers")
    from ddcm.backbone.text import _load_tokenizer

    folder = tmp_path / part
    shutil.copytree(ROOT / "checkpoints" / "pocket" / part, folder)
    (folder / "evilmod.py").write_text((tmp_path / "importable" / "evilmod.py").read_text())
    mapped = {"AutoTokenizer": ["evilmod.Evil", "evilmod.Evil"]}
    rewrite(folder / "tokenizer_config.json", lambda c: c.update({"auto_map": mapped, "tokenizer_class": "Evil"}))
    monkeypatch.setattr("builtins.input", lambda *_: attempts.append("asked"))
    try:
        assert isinstance(_load_tokenizer(folder), transformers.PreTrainedTokenizerBase)
    except ValueError as error:
        assert "trust_remote_code" in str(error) or "does not exist" in str(error)
    assert attempts == []
