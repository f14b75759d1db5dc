"""Sums over an epoch of what its steps gave, and of the seconds they took."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepclust_ext.training.learner import StepLoss


class EpochSums:
    """Sums of the loss's terms over the steps of an epoch, and the seconds they took.

    A term may be of some passes only: each has a count of its own. Nothing is read back from the device before `means`.
    """

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.seconds = {"step": 0.0, "augmentation": 0.0}

    @torch.no_grad()
    def add(self, found: StepLoss, *, step: float, augmentation: float) -> None:
        """Add a step, and the seconds of it and of its augmentation."""
        for name, term in {"loss": found.loss, **found.terms}.items():
            total = self.totals.get(name)
            self.totals[name] = term.detach().double() if total is None else total.to(term.device) + term
            self.counts[name] = self.counts.get(name, 0) + 1
        self.seconds["step"] += step
        self.seconds["augmentation"] += augmentation

    def means(self) -> dict[str, Any]:
        """Every term's mean over the steps that had it, as numbers or lists."""
        return {name: (total / self.counts[name]).tolist() for name, total in self.totals.items()}

    def timing(self) -> dict[str, float]:
        """The epoch's seconds, and the share of them that went into views."""
        step, augmentation = self.seconds["step"], self.seconds["augmentation"]
        return {"seconds": round(step, 4), "augmentation_share": round(augmentation / max(step, 1e-9), 4)}

    def state(self) -> dict[str, Any]:
        """Everything a resume in mid-epoch needs."""
        return {"totals": dict(self.totals), "counts": dict(self.counts), "seconds": dict(self.seconds)}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.totals, self.counts = dict(state["totals"]), dict(state["counts"])
        self.seconds = dict(state["seconds"])
