"""Training, the same for every method: what a learner is, the loop, and what makes a run survive a kill."""

from __future__ import annotations

from deepclust_ext.training.learner import Conclusion, Learner, Record, State, StepLoss
from deepclust_ext.training.loop import Training
from deepclust_ext.training.place import Place, Plan, scheduled
from deepclust_ext.training.seeds import derive_generator, derive_seed
from deepclust_ext.training.team import Team, joined

__all__ = [
    "Conclusion",
    "Learner",
    "Place",
    "Plan",
    "Record",
    "State",
    "StepLoss",
    "Team",
    "Training",
    "derive_generator",
    "derive_seed",
    "joined",
    "scheduled",
]
