"""Clusters features of a pretrained network by k-means, IIC and DHOG, and writes benchmarks/results/embeddings.md.

python benchmarks/study_embeddings.py --runs runs/embeddings            runs what is missing, then writes the table
python benchmarks/study_embeddings.py --runs runs/embeddings --only iic    or dhog, umap, consensus ...
python benchmarks/study_embeddings.py --runs runs/embeddings --table    writes the table from the runs that are there

CIFAR-10 is read from $DEEPCLUST_DATA/cifar10_12k.npz: 12,000 of its images, re-encoded as JPEG. Their features are made
once, into RUNS/features.npz, by benchmarks/efficientnet_lite0.py, which says which packages that needs.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path

import yaml
from _study import CIFAR, cell, main
from embeddings_peers import consensus, umap_peers

PAGE = Path(__file__).with_name("results") / "embeddings.md"
FEATURES = "$EMBEDDINGS"
# Of IIC; the table takes the one whose chosen head has the most mutual information of neighbours, seed by seed.
RATES = (0.005, 0.01, 0.02, 0.04)

# Name of the run folder, what the table calls it, and the arguments of `deepclust fit`.
STUDY = [
    ("kmeans", "k-means", f"kmeans --data {FEATURES} --seeds 0-2"),
    ("spherical", "spherical k-means", f"kmeans --spherical true --data {FEATURES} --seeds 0-2"),
    ("whitened32", "k-means, whitened to 32", f"kmeans --n-components 32 --data {FEATURES} --seeds 0-2"),
    ("whitened64", "k-means, whitened to 64", f"kmeans --n-components 64 --data {FEATURES} --seeds 0-2"),
    ("whitened128", "k-means, whitened to 128", f"kmeans --n-components 128 --data {FEATURES} --seeds 0-2"),
    ("affinity", "affinity (merging of 20 neighbours)", f"affinity --data {FEATURES} --seeds 0"),
    *((f"iic-{lr}", f"IIC, neighbours, lr {lr}", f"iic --lr {lr} --data {FEATURES} --seeds 0-2") for lr in RATES),
    ("dhog", "DHOG, neighbours", f"dhog --data {FEATURES} --seeds 0-2"),
]

# Written by embeddings_peers.py: folder and title.
BESIDE = [
    ("umap-kmeans", "UMAP, then k-means"),
    ("umap-hdbscan", "UMAP, then HDBSCAN (finds its own number)"),
    ("consensus", "IIC, consensus of heads by affinity"),
    ("consensus-kmeans", "IIC, consensus of heads by k-means"),
]
KMEANS = ("kmeans", "spherical", "whitened")
IIC = "IIC, neighbours, rate by MI"

INTRODUCTION = """# Clusters of embeddings

Written by `python benchmarks/study_embeddings.py --runs runs/embeddings`. The data are features (1,280 dimensions) of
{n:,} CIFAR-10 images from EfficientNet-lite0 at 128 pixels, digest `{digest}`. Scores are against labels that had no
part in training, stopping or the choice of the head, which goes by the mutual information (MI) of the labels of
neighbours. By the same figure, and so without labels, the row "rate by MI" takes of each seed one of the learning rates
above it; DHOG has the rate of its configuration. That both views are neighbours, 20 of them, and none is the image
itself was chosen by the scores of seed 0 in a trial: that seed is optimistic by construction. "Best head" is the one
that NMI with the classes would have picked, for reporting only. Seconds are those of the fastest seed, with one thread.

| | ACC | NMI | ARI | seconds | NMI of each seed |
|---|---:|---:|---:|---:|---|
"""

HEADS = """
## Does MI of neighbours find a good head?

Of each run, the NMI with the classes of the head that was taken, of the best and of the middle one, and which place it
has among all.

| | seed | taken | best | median | place | correlation of MI and NMI over heads |
|---|---:|---:|---:|---:|---:|---:|
"""

Metrics = dict[int, dict]


def found_in(folder: Path) -> Metrics:
    """The metrics of each seed that is finished, by seed."""
    files = {int(path.parent.name.split("-")[1]): path for path in folder.glob("seed-*/metrics.json")}
    return {seed: json.loads(files[seed].read_text(encoding="utf-8")) for seed in sorted(files)}


def row(title: str, scores: list[dict], seconds: str) -> str:
    """A line of the table."""
    seeds = ", ".join(f"{each['nmi']:.3f}" for each in scores)
    cells = [cell([each[key] for each in scores]) for key in ("acc_hungarian", "nmi", "ari")]
    return f"| {title} | {' | '.join(cells)} | {seconds} | {seeds} |"


def information(metrics: dict) -> float:
    """MI of neighbours' labels by the head that was taken."""
    return float(metrics["heads"][metrics["selected_head"]]["mi_views"])


def by_information(found: dict[str, Metrics]) -> dict[int, str]:
    """Of each seed that has run at all rates, the folder whose head has the most information."""
    runs = {name: each for name, each in found.items() if name.startswith("iic-")}
    if len(runs) < len(RATES):
        return {}
    seeds = set.intersection(*(set(each) for each in runs.values()))
    return {seed: max(runs, key=lambda name: information(runs[name][seed])) for seed in sorted(seeds)}


def margins(title: str, own: Metrics, found: dict[str, Metrics]) -> str:
    """How far a method is above the best k-means: NMI seed by seed, and mean ACC."""
    others = {name: each for name, each in found.items() if name.startswith(KMEANS)}
    seeds = [seed for seed in own if all(seed in each for each in others.values())]
    if not seeds or not others:
        return ""
    gains = [
        own[seed]["scores"]["nmi"] - max(each[seed]["scores"]["nmi"] for each in others.values()) for seed in seeds
    ]
    best = max(statistics.fmean(each[seed]["scores"]["acc_hungarian"] for seed in seeds) for each in others.values())
    mean = statistics.fmean(own[seed]["scores"]["acc_hungarian"] for seed in seeds)
    text = ", ".join(f"{gain:+.3f}" for gain in gains)
    return (
        f"- {title}: NMI {text} above the best k-means of the same seed; mean ACC {mean - best:+.3f} above the best.\n"
    )


def head_row(title: str, seed: int, metrics: dict) -> str:
    """What the choice of the head was worth."""
    scores = [head["scores"]["nmi"] for head in metrics["heads"]]
    informed = [head["mi_views"] for head in metrics["heads"]]
    taken = scores[metrics["selected_head"]]
    place = 1 + sum(score > taken for score in scores)
    return (
        f"| {title} | {seed} | {taken:.3f} | {max(scores):.3f} | {statistics.median(scores):.3f} | "
        f"{place} of {len(scores)} | {statistics.correlation(informed, scores):.2f} |"
    )


def write_page(runs: Path) -> None:
    """Write the page from every seed that is finished; a row has as many NMIs as there are."""
    found = {name: found_in(runs / name) for name, *_ in (*STUDY, *BESIDE)}
    found = {name: each for name, each in found.items() if each}
    rows, commands, heads = [], [], []
    for name, title, *arguments in (*STUDY, *BESIDE):
        if name in found:
            metrics = list(found[name].values())
            seconds = f"{min(each['seconds'] for each in metrics):.0f}"
            rows.append(row(title, [each["scores"] for each in metrics], seconds))
            if "mi_views" in metrics[0]["heads"][0]:
                rows.append(row(f"{title}: best head", [each["best_scores"] for each in metrics], ""))
                heads += [head_row(title, seed, each) for seed, each in found[name].items()]
        if name in found and arguments:
            commands.append(f"deepclust fit {arguments[0].replace(FEATURES, 'features.npz')} --out {name}")
        if name == f"iic-{RATES[-1]}":
            chosen = {seed: found[folder][seed] for seed, folder in by_information(found).items()}
            rates = ", ".join(folder.removeprefix("iic-") for folder in by_information(found).values())
            rows += [row(f"**{IIC}** ({rates})", [each["scores"] for each in chosen.values()], "")] if chosen else []
    config = yaml.safe_load(next(runs.glob("*/seed-*/config.yaml")).read_text(encoding="utf-8"))
    missing = [
        title for name, title, *_ in (*STUDY, *BESIDE) if len(found.get(name, {})) < (1 if name == "affinity" else 3)
    ]
    text = INTRODUCTION.format(n=config["data"]["n_images"], digest=config["data"]["digest"][:12]) + "\n".join(rows)
    text += f"\n\nNot all of three seeds are finished of: {', '.join(missing)}.\n" if missing else "\n"
    gained = margins(IIC, chosen, found) + margins("DHOG", found.get("dhog", {}), found)
    text += f"\n{gained}" if gained else ""
    text += HEADS + "\n".join(heads) + "\n" if heads else ""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(f"{text}\n```bash\n" + "\n".join(commands) + "\n```\n", encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


def add_beside(runs: Path, only: str) -> None:
    """Make what is no command of ours: peers, and the consensus of the heads of each run that is finished."""
    features = runs / "features.npz"
    for seed in range(3):
        if "umap".startswith(only):
            umap_peers(features, runs, seed)
        own = by_information({name: found_in(runs / name) for name, *_ in STUDY if name.startswith("iic-")})
        if "consensus".startswith(only) and seed in own:
            consensus(runs / own[seed] / f"seed-{seed}", features, runs / "consensus" / f"seed-{seed}")


def prepare(runs: Path) -> None:
    """Make the features unless they are there."""
    target = runs / "features.npz"
    os.environ["EMBEDDINGS"] = str(target)
    if not target.exists():
        from efficientnet_lite0 import embed

        runs.mkdir(parents=True, exist_ok=True)
        embed(Path(os.path.expandvars(CIFAR)), target)


def finish(runs: Path) -> None:
    """After the commands: what is beside them, and the page."""
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
    if "--table" not in sys.argv:
        add_beside(runs, only)
    write_page(runs)


if __name__ == "__main__":
    if "--runs" in sys.argv and "--table" not in sys.argv:
        prepare(Path(sys.argv[sys.argv.index("--runs") + 1]))
    main(str(__doc__), {name: f"fit {words} --resume auto" for name, _, words in STUDY}, finish)
