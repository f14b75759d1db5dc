"""The sub-commands of `deepclust`, a module each with `run(words) -> exit code`."""

from __future__ import annotations

# Modules of this package, imported when asked for: `deepclust info` must not wait for scikit-learn.
COMMANDS = {
    "fit": "cluster images or embeddings, and label them",
    "predict": "label new images with a finished run",
    "evaluate": "score a finished run",
    "compare": "finished runs, and sweeps over seeds, side by side",
    "embed": "embed images by a pretrained network",
    "report": "write one HTML page to look at a finished run",
    "duplicates": "find images that are the same or nearly so",
    "study": "experiments with DeepCluster: random networks, halting, numbers of clusters",
    "bench": "time the kernels against plain PyTorch",
    "info": "versions, devices, processor features",
}
