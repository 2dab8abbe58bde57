"""A run begins with the weights of another one, which a machine with a GPU left without its optimizer."""

import copy

import pytest
import torch
from torch import nn

lightning = pytest.importorskip("lightning")
pytest.importorskip("pytorch_optimizer")

from ddcm.errors import UserError  # noqa: E402
from pocket import assemble, checkpoints  # noqa: E402
from pocket.budget import TimeBudget  # noqa: E402
from pocket.vocoder import VocoderStage  # noqa: E402

SPENT = {
    "callbacks": {"TimeBudget": {"spent_s": 90.0}},
    "loops": {"fit_loop": {"epoch_loop.batch_progress": {"total": {"completed": 40}}}},
}


class Averaged(lightning.LightningModule):
    """A stage that keeps an average of its parts, as the UNet's does."""

    def __init__(self):
        super().__init__()
        self.parts = nn.Linear(3, 2)
        self.ema = copy.deepcopy(self.parts)


def vocoder_state(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return VocoderStage(runs="none", width=32).state_dict()


def test_the_discriminators_may_be_missing():
    saved = {name: x for name, x in vocoder_state(1).items() if name.startswith("vocoder.")}
    stage = VocoderStage(runs="none", width=32)
    checkpoints.begin_with(stage, {"state_dict": saved})
    assert all(torch.equal(x, stage.state_dict()[name]) for name, x in saved.items())


def test_the_average_stands_for_the_weights():
    first, stage = Averaged(), Averaged()
    average = {name: x for name, x in first.state_dict().items() if name.startswith("ema.")}
    checkpoints.begin_with(stage, {"state_dict": average})
    assert torch.equal(stage.parts.weight, first.ema.weight) and torch.equal(stage.ema.weight, first.ema.weight)


@pytest.mark.parametrize(
    "state, match",
    [
        (lambda: {"vae.conv.weight": torch.zeros(1)}, "of another stage"),
        (lambda: {name: x for name, x in vocoder_state(0).items() if "conv_pre" not in name}, "of another stage"),
        (lambda: {**vocoder_state(0), "vocoder.conv_pre.weight": torch.zeros(2, 2)}, "of another form"),
    ],
)
def test_weights_of_another_stage_or_form_are_refused(state, match):
    with pytest.raises(UserError, match=match):
        checkpoints.begin_with(VocoderStage(runs="none", width=32), {"state_dict": state()})


def test_steps_and_minutes_add_up_over_runs(tmp_path):
    assert checkpoints.spent(SPENT) == {"steps": 40, "minutes": 1.5}
    budget = TimeBudget(10, before=checkpoints.spent(SPENT))
    budget.spent_s = 30.0
    again = TimeBudget(10)
    again.load_state_dict(budget.state_dict())
    saved = SPENT | {"callbacks": {"TimeBudget": again.state_dict()}}
    assert checkpoints.spent(saved) == {"steps": 80, "minutes": 2.0}
    (tmp_path / "runs" / "vocoder").mkdir(parents=True)
    torch.save(saved, tmp_path / "runs" / "vocoder" / "last.ckpt")
    (tmp_path / "training.json").write_text(
        '{"vocoder": {"steps": 5, "minutes": 1.0}, "vae": {"steps": 7, "minutes": 2}}'
    )
    both = assemble.training(tmp_path / "runs", tmp_path)
    assert both == {"vae": {"steps": 7, "minutes": 2}, "vocoder": {"steps": 85, "minutes": 3.0}}
    fresh = assemble.training(tmp_path / "runs", tmp_path, ["vocoder"])
    assert fresh["vocoder"] == {"steps": 80, "minutes": 2.0}
