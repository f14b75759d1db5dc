"""Experiments with DeepCluster: what random networks know, when clustering may stop, how many clusters to ask for."""

from deepclust_ext.study.alignment import InitialAlignment, initial_alignment, plot_alignment, select_alignment
from deepclust_ext.study.sweep import SweepRun, sweep

__all__ = [
    "InitialAlignment",
    "SweepRun",
    "initial_alignment",
    "plot_alignment",
    "select_alignment",
    "sweep",
]
