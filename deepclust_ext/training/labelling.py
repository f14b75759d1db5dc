"""Labels of the training images while a run goes on: the share that changed, and scores where classes are known."""

from __future__ import annotations

from torch import Tensor

from deepclust_ext import evaluate
from deepclust_ext.training.inference import label_heads
from deepclust_ext.training.learner import Learner, Record, State


class EpochLabels:
    """Remembers the last labels, so that the next can be compared with them."""

    def __init__(self) -> None:
        self.previous: Tensor | None = None

    def look(self, learner: Learner, figures: Record) -> Record:
        """Label the images with every head; `figures` say, by `nmi_views`, of which head the churn is."""
        labels = label_heads(learner.net, learner.augmentation, learner.images.values)[0]
        record: Record = {}
        if self.previous is not None:
            agreement = figures.get("nmi_views", [0.0] * len(labels))
            head = max(range(len(labels)), key=lambda h: (agreement[h], -h))
            record["churn"] = evaluate.churn(self.previous[head].numpy(), labels[head].numpy())
        self.previous = labels
        if learner.images.labels is not None:
            y = learner.images.labels.cpu().numpy()
            record["scores"] = [evaluate.scores(head.numpy(), y) for head in labels]
        return record

    def state(self) -> State:
        """For a checkpoint."""
        return {"previous": self.previous}

    def load(self, state: State) -> None:
        """Take over a saved state."""
        self.previous = state["previous"]
