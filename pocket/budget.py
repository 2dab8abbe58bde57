"""A training length given as minutes: the schedule follows the clock, across as many runs as it takes."""

import math
import time

import lightning as L


class TimeBudget(L.Callback):
    """Stops when ``minutes`` have been trained in all runs together, and sets the learning rate on the way.

    The rate warms up over ``warmup`` steps and falls to a hundredth along a cosine of the share of the budget
    that is spent, so a longer run is the same schedule stretched. Spent time is part of the checkpoint;
    resuming with a larger budget goes on from the rate that the larger budget gives.
    """

    def __init__(self, minutes: float, warmup: int = 100, before: dict[str, float] | None = None):
        """``before``: steps and minutes of the run whose weights this one began with."""
        self.minutes, self.warmup, self.spent_s = minutes, warmup, 0.0
        self.before = before or {"steps": 0, "minutes": 0.0}

    @property
    def progress(self) -> float:
        return min(1.0, self.spent_s / (60 * self.minutes))

    def on_train_start(self, trainer, module) -> None:
        self._tick = time.monotonic()

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        scale = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress))
        scale *= min(1.0, (trainer.global_step + 1) / self.warmup)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("base_lr", group["lr"]) * scale

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        now = time.monotonic()
        self.spent_s += min(now - self._tick, 60.0)  # validation in between counts too, a suspended machine not
        self._tick = now
        module.log_dict({"budget": self.progress}, prog_bar=True)
        if self.progress >= 1.0:
            trainer.should_stop = True

    def state_dict(self) -> dict:
        return {"spent_s": self.spent_s, "before": self.before}

    def load_state_dict(self, state: dict) -> None:
        self.spent_s, self.before = state["spent_s"], state.get("before", self.before)
