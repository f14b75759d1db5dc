"""Every METHOD of the command line as a run of a second or two: words that make it small."""

from __future__ import annotations

COMMON = ["--clusters", "4"]
TRAINED = ["--device", "cpu", "--batch-size", "40"]
_TREE = ["--network", "tiny8", "--width", "0.25"]
_HEADS = [*_TREE, "--n-heads", "2", "--hidden", "8", "--augmentation", "digits"]
_BANK = ["--network", "tiny8", "--dim", "8", "--augmentation", "figures", "--checkpoint-every", "2"]
_ROUNDS = ["--rounds", "2", "--round-epochs", "1"]

# The options after `fit METHOD --data DATA --out OUT`.
TINY: dict[str, list[str]] = {
    "dhog": [*TRAINED, *_HEADS, "--n-augmentations", "2", "--epochs", "2", "--evaluate-every", "1"],
    "iic": [*TRAINED, *_HEADS, "--n-augmentations", "2", "--epochs", "2", "--evaluate-every", "1"],
    "deepcluster": [*TRAINED, *_TREE, "--epochs", "2", "--lr", "0.05"],
    "super-and": [*TRAINED, *_BANK, *_ROUNDS],
    "and": [*TRAINED, *_BANK, *_ROUNDS],
    "instance": [*TRAINED, *_BANK, *_ROUNDS],
    "jule": [*TRAINED, "--width", "0.2", "--dim", "8", "--n-neighbors", "8", "--period-epochs", "2", "--eta", "0.4"],
    "vcami": [
        *TRAINED, *_TREE, "--latent", "8", "--units", "16", "--hidden", "16", "--epochs", "4", "--prior-start", "0.5",
        "--augmentation", "objects", "--evaluate-every", "2",
    ],
    "kmeans": ["--n-init", "2"],
    "affinity": [],
}  # fmt: skip


def tiny(method: str, data: object, out: object, *more: str) -> list[str]:
    """The command line of a small run."""
    return ["fit", method, "--data", str(data), "--out", str(out), *COMMON, *TINY[method], *more]
