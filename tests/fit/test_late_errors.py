"""Options that Lightning refuses late, and devices that are none: one line and exit code 2."""

from importlib.util import find_spec

import pytest
import torch

pytest.importorskip("lightning")

from ddcm.backbone import load
from ddcm.errors import UserError
from ddcm.fit.cli import main
from ddcm.fit.data import LatentData
from ddcm.fit.metrics import CodebookMetrics
from ddcm.fit.tensorboard import plot_codebook
from ddcm.pipeline.quantise import count_codes
from ddcm.quantize import HardQuantizer, ProjectedQuantizer

pytestmark = pytest.mark.filterwarnings("ignore")


class TwoSets(LatentData):
    def val_dataloader(self):
        return [super().val_dataloader(), super().val_dataloader()]


LATE = {
    "best": ["--ckpt_path=best"], "hpc": ["--ckpt_path=hpc"], "no path": ["--ckpt_path="],
    "absent": ["--ckpt_path=absent.ckpt"], "folder": ["--ckpt_path=/"],
    "epochs and interval": ["--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=50"],
    "missing package": ["--trainer.callbacks+=RichProgressBar", "--trainer.enable_progress_bar=true"],
    "no logger": ["--trainer.callbacks+=LearningRateMonitor"], "profiler": ["--trainer.profiler=nonsense"],
    "accelerator": ["--trainer.accelerator=hpu"], "strategy": ["--trainer.strategy=deepspeed"],
    "precision": ["--trainer.precision=transformer-engine"], "monitor": ["--best.monitor=nonsense"],
    "averaging": ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"],
    "accumulation": ["--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={1: 2}"],
    "processes": ["--trainer.accelerator=cpu", "--trainer.devices=9999"],
    "reload": ["--trainer.reload_dataloaders_every_n_epochs=1"],
    "two validation loaders": ["--data=tests.fit.test_late_errors.TwoSets"],
}  # fmt: skip


@pytest.mark.parametrize("late", LATE)
def test_late_errors_are_one_line(command, tmp_path, capsys, late, latents):
    if late == "missing package" and find_spec("rich"):
        pytest.skip("the package is there")
    arguments = [x for x in command if not x.startswith("--data.")] if late.startswith("two") else command
    own = [f"--data.root={x.partition('=')[2]}" for x in command if x.startswith("--data.root")]
    more = [*own, f"--data.cache_dir={latents}"] if late.startswith("two") else []
    with pytest.raises(SystemExit) as stop:
        main([*arguments, f"--trainer.default_root_dir={tmp_path}", *LATE[late], *more])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2 and len(lines) == 1 and len(lines[0]) > 20
    assert not (tmp_path / "codebook").exists()


@pytest.mark.parametrize(
    "device", ["hpu", "xpu", "mps", "meta", "xla", "privateuseone", "mtia", "cuda:99", "gpu", "", "mkldnn", "lazy"]
)
def test_devices_that_are_none_are_refused(device):
    with pytest.raises(UserError, match="cannot be used"):
        load("tiny", device=device)


class NoFloat64(torch.Tensor):
    """A tensor of a device without float64, such as MPS."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        result = super().__torch_function__(func, types, args, kwargs or {})
        for part in result if isinstance(result, tuple) else (result,):
            if isinstance(part, cls) and part.dtype == torch.float64:
                raise TypeError("the device has no float64")
        return result


@pytest.mark.parametrize("part", ["metrics", "projection", "picture", "codes"])
def test_no_float64_on_the_training_device(part):
    z = torch.randn(2, 8, 4, 16, generator=torch.Generator().manual_seed(0))
    there = z.as_subclass(NoFloat64)
    with pytest.raises(TypeError, match="no float64"):
        there.double()
    if part == "metrics":
        quantizer, values = HardQuantizer(16).eval(), []
        for given in (z, there):
            metrics = CodebookMetrics(quantizer, 400)
            metrics.update(given, quantizer(given))
            values.append(metrics.to(torch.bfloat16).compute())
        assert values[0] == values[1] and metrics.error.dtype == torch.float64
    elif part == "projection":
        states = []
        for given in (z, there):
            quantizer = ProjectedQuantizer(HardQuantizer(4, 6))
            quantizer.initialise(given.movedim(1, -1).reshape(-1, 8))
            states.append(quantizer.project_in.weight.detach().as_subclass(torch.Tensor))
        assert torch.equal(*states)
    elif part == "picture":
        assert plot_codebook(torch.randn(4, 8), torch.full((4,), 0.25), there.movedim(1, -1).reshape(-1, 8))
    else:
        quantizer = HardQuantizer(16).eval()
        assert torch.equal(count_codes(there, quantizer), count_codes(z, quantizer))
