"""Options of the trainer: each has its effect, or is refused in a line."""

import copy
import inspect
from typing import Union

import pytest
import torch

pytest.importorskip("lightning")

import lightning as L

from ddcm.fit.cli import main
from ddcm.fit.data.sampler import RepeatedOrder, ShuffledOrder, TrainStream
from ddcm.fit.module import CodebookModule
from ddcm.quantize import HardQuantizer
from ddcm.quantize.pretrained import load_codebook
from tests.conftest import Killed
from tests.helpers.fit_kinds import FIT_KINDS

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK = ("--trainer.limit_val_batches=1",)


@pytest.fixture
def fit(command, tmp_path):
    """``fit(name, *options)`` returns the last checkpoint of a run in ``tmp_path / name``."""

    def run(name: str, *options: str) -> dict:
        main([*command, *QUICK, f"--trainer.default_root_dir={tmp_path / name}", *options])
        return torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)

    return run


# Precision.


@pytest.fixture(scope="module")
def exact_states() -> dict[str, dict]:
    """By kind: the state after a fit in single precision, which is run once."""
    return {}


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", FIT_KINDS)
def test_atoms_and_statistics_are_float32_in_every_precision(fit, exact_states, kind, precision):
    options = (*FIT_KINDS[kind], "--trainer.max_steps=3", "--trainer.val_check_interval=3")
    if kind not in exact_states:
        exact_states[kind] = fit("exact", *options)["state_dict"]
    exact = exact_states[kind]
    cast = fit("cast", *options, f"--trainer.precision={precision}")["state_dict"]
    # Cached latents are float16, so that half and double precision hold them exactly.
    tolerance = 5e-2 if precision.startswith("bf16") else 1e-6
    for name, value in exact.items():
        if name == "unused":
            continue
        assert cast[name].dtype == value.dtype, name
        if precision != "bf16-true" or not name.endswith(("codebook", "sums", "counts", "usage")):  # others are revived
            torch.testing.assert_close(cast[name].float(), value.float(), rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_the_diffusion_term_in_every_precision(fit, precision):
    options = ("--model.diffusion_weight=1.0", "--trainer.max_steps=2", "--trainer.val_check_interval=2")
    errors = [
        fit(name, *options, f"--trainer.precision={given}")["callbacks"]["ExportCodebook"]["measured"][2]
        for name, given in (("exact", "32-true"), ("cast", precision))
    ]
    assert errors[1]["denoising_error"] == pytest.approx(errors[0]["denoising_error"], rel=1e-2)


@pytest.mark.parametrize("cast", [torch.nn.Module.half, torch.nn.Module.double, lambda q: q.to(torch.bfloat16)])
def test_a_cast_changes_no_number_of_a_quantizer(cast):
    quantizer = HardQuantizer(16, learn="ema")
    quantizer(torch.randn(2, 8, 4, 4))
    before = copy.deepcopy(quantizer.state_dict())
    assert all(torch.equal(before[name], value) for name, value in cast(quantizer).state_dict().items())
    z = torch.randn(1, 8, 4, 4).half()
    assert quantizer.eval()(z).z.dtype == torch.float16


# Accumulated gradients.


@pytest.mark.parametrize("kind", FIT_KINDS)
def test_two_accumulated_batches_are_one_of_twice_the_size(fit, tmp_path, kind):
    options = (*FIT_KINDS[kind], "--trainer.max_steps=3", "--trainer.val_check_interval=1")  # of one epoch
    whole = fit("whole", *options, "--data.batch_size=4")
    halves = fit("halves", *options, "--trainer.accumulate_grad_batches=2", "--model.init_batches=4")
    assert halves["global_step"] == whole["global_step"] == 3
    measured = [checkpoint["callbacks"]["ExportCodebook"]["measured"] for checkpoint in (whole, halves)]
    assert list(measured[0]) == list(measured[1]) == [1, 2, 3]  # validated at the same steps
    for name, value in whole["state_dict"].items():
        torch.testing.assert_close(halves["state_dict"][name], value, rtol=0, atol=1e-4, msg=name)


@pytest.mark.parametrize("batches", [2, 3, 4])
def test_kilocells_count_the_cells_that_were_seen(fit, monkeypatch, batches):
    seen = []
    monkeypatch.setattr(CodebookModule, "_log_now", lambda self, metrics, step: seen.append((metrics, step)))
    options = ("--trainer.max_steps=6", "--trainer.val_check_interval=3")
    fit("run", *options, f"--trainer.accumulate_grad_batches={batches}")
    counted = [step for metrics, step in seen if "by_kilocells/quantisation_error" in metrics]
    cells = 2 * 32 * 16  # of a batch
    assert counted == [3 * batches * cells // 1000, 6 * batches * cells // 1000]


@pytest.mark.parametrize("batches", [2, 3])
def test_killed_and_resumed_with_accumulated_gradients(fit, monkeypatch, tmp_path, batches):
    accumulated = f"--trainer.accumulate_grad_batches={batches}"
    options = ("--trainer.max_steps=9", "--trainer.val_check_interval=2", accumulated)
    whole = fit("whole", *options)

    def kill(self, *_):
        if self.global_step == 5:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(CodebookModule, "on_train_batch_end", kill)
        with pytest.raises(Killed):
            fit("cut", *options)
    cut = fit("cut", *options, f"--ckpt_path={tmp_path / 'cut' / 'checkpoints' / 'last.ckpt'}")
    assert all(torch.equal(value, cut["state_dict"][name]) for name, value in whole["state_dict"].items())


# Limits.


@pytest.mark.parametrize("option", ["max_steps=0", "max_epochs=0", "limit_train_batches=0", "max_time=00:00:00:00"])
def test_a_fit_without_a_step_leaves_the_export(fit, command, tmp_path, capsys, option):
    fit("run")
    before = (tmp_path / "run" / "codebook" / "model.safetensors").read_bytes()
    with pytest.raises(SystemExit) as stop:
        main([*command, *QUICK, f"--trainer.default_root_dir={tmp_path / 'run'}", f"--trainer.{option}"])
    assert stop.value.code == 2 and "no training step: nothing is exported" in capsys.readouterr().err
    assert (tmp_path / "run" / "codebook" / "model.safetensors").read_bytes() == before


WITHOUT = {
    "no validation": ("--trainer.limit_val_batches=0",), "share": ("--trainer.limit_val_batches=0.0",),
    "fewer steps": ("--trainer.val_check_interval=50",),     "shares of an epoch": (
        "--trainer.limit_val_batches=0", "--trainer.val_check_interval=0.5", "--trainer.check_val_every_n_epoch=1",
        "--trainer.max_steps=7",
    ),
    "no multiple": ("--trainer.val_check_interval=4",),
    "epochs": ("--trainer.limit_val_batches=0", "--trainer.max_steps=-1", "--trainer.max_epochs=1"),
}  # fmt: skip


@pytest.mark.parametrize("without", WITHOUT)
def test_a_run_without_validations_can_be_resumed(fit, tmp_path, without):
    options = (*FIT_KINDS["hard-ema"], "--trainer.max_steps=6", *WITHOUT[without])
    cut = fit("cut", *options)
    steps = 7 if without in ("epochs", "shares of an epoch") else 6
    assert cut["global_step"] == steps
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    more = ("--trainer.max_steps=10",)
    resumed, whole = fit("cut", *options, *more, f"--ckpt_path={last}"), fit("whole", *options, *more)
    assert resumed["global_step"] == whole["global_step"]
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert load_codebook(tmp_path / "cut" / "codebook").quantizer.initialised


def test_a_run_without_validations_writes_checkpoints_on_its_way(fit, monkeypatch, tmp_path):
    def kill(self, *_):
        if self.global_step == 5:
            raise Killed

    monkeypatch.setattr(CodebookModule, "on_train_batch_end", kill)
    with pytest.raises(Killed):
        fit("cut", "--trainer.limit_val_batches=0")
    checkpoint = torch.load(tmp_path / "cut" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4


@pytest.mark.parametrize("few, number", [("1", 1), ("2", 2), ("3", 3), ("0.5", 3), ("1.0", 7)])
def test_overfit_batches_repeats_the_first(fit, monkeypatch, few, number):
    seen = []
    monkeypatch.setattr(
        CodebookModule, "on_train_batch_end", lambda self, outputs, batch, index: seen.append(float(batch["z"].sum()))
    )
    fit("run", f"--trainer.overfit_batches={few}", "--trainer.val_check_interval=1", "--trainer.max_steps=16")
    assert seen == (seen[:number] * 16)[:16] and len(set(seen)) == number


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("start", [0, 1, 7])
def test_repeated_batches_go_on_where_they_were(number, start):
    order = RepeatedOrder(ShuffledOrder(20, 2, 0), number)
    batches, plain = order.batches(start), ShuffledOrder(20, 2, 0)
    assert [next(batches) for _ in range(9)] == [plain.indices((start + i) % number) for i in range(9)]


@pytest.mark.parametrize("step", [1, 2, 3, 10, 50])
def test_an_epoch_cuts_no_step(step):
    stream = TrainStream(list(range(21)), ShuffledOrder(21, 2, 0), step=step)  # type: ignore[arg-type]
    assert len(stream) % step == 0 and 10 <= len(stream) < 10 + step


@pytest.mark.parametrize("limit, batches", [("1", 1), ("1.0", 3), ("0.5", 1), ("2", 2)])
def test_a_limit_is_a_number_or_a_share_and_holds_for_the_start_too(command, tmp_path, monkeypatch, limit, batches):
    """Also where another library has named the type the other way round before Lightning did."""
    annotations = inspect.unwrap(L.Trainer.__init__).__annotations__
    monkeypatch.setitem(annotations, "limit_val_batches", Union[float, int, None])  # noqa: UP007
    counted = []
    real = CodebookModule.validation_step
    monkeypatch.setattr(CodebookModule, "validation_step", lambda *x: (counted.append(x[2]), real(*x))[1])
    options = ["--model.learning_rate=0", "--trainer.max_steps=1", "--trainer.val_check_interval=1"]
    small = ["--data.batch_size=1", f"--trainer.limit_val_batches={limit}"]
    main([*command, *options, *small, f"--trainer.default_root_dir={tmp_path}"])
    fit = load_codebook(tmp_path / "codebook").config["fit"]
    assert counted == list(range(batches))
    assert fit["quantisation_error"] == pytest.approx(fit["quantisation_error_start"], rel=1e-6)
