"""Codebooks on disk: what comes back, and what is refused."""

import json
import pickle
import shutil

import pytest
import torch

from ddcm.backbone.tiny import tiny_backbone
from ddcm.cli.info import collect_facts
from ddcm.errors import UserError
from ddcm.quantize import HardQuantizer, ProjectedQuantizer, ResidualQuantizer
from ddcm.quantize.pretrained import Codebook, describe, load_codebook, save_codebook
from ddcm.quantize.spec import from_spec, rename_options, to_spec

MEL = tiny_backbone().mel_spec.to_dict()


class Bomb:
    def __reduce__(self):
        return (open, ("/tmp/ddcm-pickle-was-run", "w"))


@pytest.fixture(params=["gradient", "ema"])
def quantizer(request) -> HardQuantizer:
    made = HardQuantizer(32, 8, learn=request.param)
    made(torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)))  # statistics off their start
    return made


@pytest.fixture
def folder(tmp_path, quantizer):
    backbone = tiny_backbone()
    save_codebook(tmp_path / "c", quantizer, backbone.name, backbone.latent_digest, MEL, {"kbps": 3.5})
    return tmp_path / "c"


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def one_line(error) -> bool:
    return "\n" not in str(error.value)


def test_round_trip(folder, quantizer, tmp_path):
    codebook = load_codebook(folder)
    assert same(codebook.quantizer.state_dict(), quantizer.state_dict())
    assert codebook.quantizer.config == quantizer.config and not codebook.quantizer.training
    assert not any(p.requires_grad for p in codebook.quantizer.parameters())
    assert codebook.config["fit"] == {"kbps": 3.5} and "kbps | 3.5" in (folder / "README.md").read_text()
    codebook.check(tiny_backbone())
    codebook.save_pretrained(tmp_path / "again")
    again = Codebook.from_pretrained(tmp_path / "again")
    assert again.config == codebook.config and same(again.quantizer.state_dict(), quantizer.state_dict())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "c"]  # nothing temporary is left


@pytest.mark.parametrize(
    "quantizer, books",
    [(HardQuantizer(4), 1), (ResidualQuantizer(3, HardQuantizer(4)), 3), (ProjectedQuantizer(HardQuantizer(4, 6)), 1)],
    ids=["hard", "residual", "projected"],
)
def test_inspect_knows_every_quantizer(quantizer, books, tmp_path):
    backbone = tiny_backbone()
    save_codebook(tmp_path / "c", quantizer, backbone.name, backbone.latent_digest, MEL, {})
    facts = collect_facts(str(tmp_path / "c"))
    assert facts["quantizer"] == type(quantizer).__name__ and facts["latent digest"] == backbone.latent_digest
    assert sum(name.startswith("atom norm") for name in facts) == books
    assert not any("\n" in str(fact) for fact in facts.values())


def test_another_backbone_is_refused_by_name(folder):
    other = tiny_backbone(seed=1)
    with pytest.raises(UserError, match=f"fitted on tiny.*this is {other.name}.*fit one with") as error:
        load_codebook(folder).check(other)
    assert one_line(error)


def test_another_dimension_is_refused(tmp_path):
    backbone = tiny_backbone()
    save_codebook(tmp_path / "c", HardQuantizer(8, 4), backbone.name, backbone.latent_digest, MEL, {})
    with pytest.raises(UserError, match="4 numbers"):
        load_codebook(tmp_path / "c").check(backbone)


def test_pickles_are_refused_and_not_run(folder, tmp_path):
    from pathlib import Path

    bomb = pickle.dumps(Bomb(), protocol=2)
    (folder / "model.safetensors").write_bytes(bomb)
    for name in ("a.pt", "b.ckpt"):
        (tmp_path / name).write_bytes(bomb)
    torch.save({"state_dict": {}, "ddcm": Bomb()}, tmp_path / "c.ckpt")
    for name in (folder, tmp_path / "a.pt", tmp_path / "b.ckpt", tmp_path / "c.ckpt"):
        with pytest.raises(UserError, match=r"pickle|refused") as error:
            load_codebook(name)
        assert one_line(error)
    assert not Path("/tmp/ddcm-pickle-was-run").exists()


def test_lightning_checkpoint_is_accepted(quantizer, tmp_path):
    backbone = tiny_backbone()
    state = {f"quantizer.{name}": value for name, value in quantizer.state_dict().items()}
    about = describe(quantizer, backbone.name, backbone.latent_digest, MEL)
    torch.save({"state_dict": {**state, "idle": torch.zeros(())}, "ddcm": about}, tmp_path / "last.ckpt")
    codebook = load_codebook(tmp_path / "last.ckpt")
    assert same(codebook.quantizer.state_dict(), quantizer.state_dict())
    codebook.check(backbone)


def test_damage_is_named(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    cases = {
        "not JSON": lambda: (folder / "config.json").write_text("{"),
        "do not fit": lambda: (folder / "config.json").write_text(json.dumps({**config, "quantizer": {}})),
        "none of": lambda: (folder / "config.json").write_text(
            json.dumps({**config, "quantizer": {"class": "os.system", "config": {}}})
        ),
        "model.safetensors is missing": lambda: (folder / "model.safetensors").unlink(),
        "config.json is missing": lambda: (folder / "config.json").unlink(),
    }
    for message, damage in cases.items():
        damage()
        with pytest.raises(UserError, match=message) as error:
            load_codebook(folder)
        assert one_line(error)
    with pytest.raises(UserError, match="neither a folder"):
        load_codebook(tmp_path / "absent")


def test_a_folder_of_something_else_is_not_replaced(folder, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years")
    with pytest.raises(UserError, match="not a codebook"):
        load_codebook(folder).save_pretrained(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years"


def test_push_to_hub_uploads_what_from_pretrained_reads(folder, monkeypatch, tmp_path):
    import huggingface_hub

    said = []

    class Api:
        def __init__(self, token):
            said.append(("token", token))

        def create_repo(self, repo_id, **options):
            said.append((repo_id, options))

        def upload_folder(self, repo_id, folder_path):
            shutil.copytree(folder_path, tmp_path / "uploaded")
            return f"commit of {repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    codebook = load_codebook(folder)
    assert codebook.push_to_hub("me/mine", token="secret", private=True) == "commit of me/mine"
    assert said == [("token", "secret"), ("me/mine", {"repo_type": "model", "exist_ok": True, "private": True})]
    again = load_codebook(tmp_path / "uploaded")
    assert again.config == codebook.config
    assert torch.equal(again.quantizer.codebook, codebook.quantizer.codebook)
    assert codebook.latent_digest in (tmp_path / "uploaded" / "README.md").read_text()


OLDER = {
    "class": "ResidualQuantizer",
    "config": {"levels": 2, "level": {"class": "HardQuantizer", "config": {"codebook_size": 4, "revive_below": 0.5}}},
}


def test_options_of_version_0_1_are_read_under_their_former_names():
    quantizer = from_spec(OLDER)
    assert quantizer.num_quantizers == 2 and quantizer.stack[1].threshold_usage_ratio == 0.5
    assert rename_options(to_spec(quantizer)) == to_spec(quantizer)
    with pytest.raises(ValueError, match="not those of"):  # the bound holds under the former names, too
        from_spec({"class": "ResidualQuantizer", "config": {"levels": 1 << 30}}, numbers=1000)


def test_options_of_other_classes_keep_their_names():
    configuration = {
        "model": {"quantizer": {"class_path": "mine.Quantizer", "init_args": {"levels": 3}}},
        "trainer": {"callbacks": [{"class_path": "ddcm.quantize.ResidualQuantizer", "init_args": {"levels": 3}}]},
    }
    renamed = rename_options(configuration)
    assert renamed["model"] == configuration["model"]
    assert renamed["trainer"]["callbacks"][0]["init_args"] == {"num_quantizers": 3}
