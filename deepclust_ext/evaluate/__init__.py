"""Evaluation: scores against classes, diagnostics without them, probes of features, a baseline."""

from deepclust_ext.evaluate.scores import (
    acc_hungarian,
    acc_majority,
    apply_mapping,
    ari,
    contingency,
    hungarian_mapping,
    majority_mapping,
    nmi,
    nmi_views,
    scores,
)

__all__ = [
    "acc_hungarian",
    "acc_majority",
    "apply_mapping",
    "ari",
    "contingency",
    "hungarian_mapping",
    "majority_mapping",
    "nmi",
    "nmi_views",
    "scores",
]
