"""What the tool itself finds in a run: in words that need no knowledge of the field, with what to try."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepclust_ext.report.known import Known
from deepclust_ext.report.run import APART, Run, Seeds
from deepclust_ext.report.scores import ScoreRow

# Below these, seeds do not tell the same story.
AGREEMENT, SPREAD = 0.75, 0.05
# k-means on the embedding must be better by this to be worth a word.
MARGIN = 0.02
RESTLESS = 0.1


@dataclass(frozen=True)
class Finding:
    """One thing that a reader should know.

    Parameters
    ----------
    level : {"bad", "look", "good"}
    title : str
        A few words.
    text : str
        What it means.
    advice : str
        What to try; "" where nothing needs to be done.
    """

    level: str
    title: str
    text: str
    advice: str = ""


def findings(run: Run, known: Known, rows: Sequence[ScoreRow], seeds: Seeds | None) -> list[Finding]:
    """Look for what is wrong; the worst first, and one that says so where nothing is."""
    found = [*_collapse(run), *_baselines(run, rows), *_seeds(seeds), *_training(run), *_data(run, known)]
    if not any(each.level == "bad" for each in found):
        checked = "no cluster has taken over, and the labels use enough of the clusters"
        checked += _beside_kmeans(rows)
        found.append(Finding("good", "No warning", f"What this page checks looks right: {checked}."))
    order = ("bad", "look", "good")
    return sorted(found, key=lambda each: order.index(each.level))


def _beside_kmeans(rows: Sequence[ScoreRow]) -> str:
    """How the run's accuracy compares with k-means, where both are known."""
    own = next((row.values.get("acc_hungarian") for row in rows if row.ours), None)
    others = [(row.name, row.values.get("acc_hungarian")) for row in rows if "k-means" in row.name and not row.ours]
    known = [f"{value:.3f} of {name}" for name, value in others if value is not None]
    if own is None or not known:
        return ""
    return f"; ACC is {own:.3f} beside {' and '.join(known)}"


def _collapse(run: Run) -> list[Finding]:
    """Clusters that have swallowed the others."""
    found = []
    inside = run.labels[run.labels >= 0]
    counts = np.bincount(inside, minlength=run.n_clusters)
    used, largest = int((counts > 0).sum()), float(counts.max(initial=0) / max(1, len(inside)))
    if run.head is None and run.metrics.get("collapsed"):
        found.append(
            Finding(
                "bad",
                "The run has collapsed",
                f"It {run.metrics['collapsed']}: most images got the same few labels, so the labels say little.",
                "Try a lower learning rate (--lr), a larger batch (--batch-size) or another seed (--seed). With "
                "fewer clusters than the data have groups (--clusters), or views that are too strongly changed "
                "(--augmentation), this is common, too.",
            )
        )
    else:
        if used < run.n_clusters:
            found.append(
                Finding(
                    "look",
                    f"{run.n_clusters - used} of {run.n_clusters} clusters are empty",
                    "The data may have fewer groups than were asked for.",
                    f"Try --clusters {used}, or another seed.",
                )
            )
        if largest > max(0.4, 3 / max(1, used)) and used > 1:
            found.append(
                Finding(
                    "look",
                    f"One cluster holds {100 * largest:.0f} % of the images",
                    "It may be a mixture of what no other cluster took.",
                    "Look at its least confident images below; try more clusters.",
                )
            )
    heads = {record.get("head") for record in run.log if record.get("kind") == "collapse"}
    others = sorted(head for head in heads if head is not None and head != run.metrics.get("selected_head"))
    if others and len(run.metrics.get("heads", [])) > 1:
        numbers = ", ".join(map(str, others))
        found.append(
            Finding(
                "look",
                f"{len(others)} of {len(run.metrics['heads'])} heads collapsed at some time",
                f"These heads used few clusters or put nearly all images in one: {numbers}. The labels come from head "
                f"{run.metrics.get('selected_head')}, which is another.",
            )
        )
    return found


def _baselines(run: Run, rows: Sequence[ScoreRow]) -> list[Finding]:
    """Less than k-means reaches."""
    own = rows[0].values.get("nmi")
    if own is None:
        return []
    found = []
    pixels = next((row for row in rows if row.name in ("k-means on pixels", "k-means on embeddings")), None)
    if pixels is not None:
        against = pixels.values.get("nmi") or 0.0
        # On the images that k-means had, where these are a sample.
        same = own if run.head is not None else pixels.values.get("run_nmi", own) or 0.0
        if same < against:
            what = pixels.name.removeprefix("k-means on ")
            found.append(
                Finding(
                    "bad",
                    f"Below {pixels.name}",
                    f"Clustering the {what} as they are, in seconds and without any training, comes closer to the "
                    f"classes (NMI {against:.3f}) than this run (NMI {same:.3f}): for clusters, what it has learnt "
                    "does not help.",
                    "Train longer (--epochs), start from a configuration made for such data (--config), or take "
                    "another method; deepclust fit kmeans gives the better labels at once.",
                )
            )
    embedded = next((row for row in rows if row.name == "k-means on the run's embedding"), None)
    value = None if embedded is None else embedded.values.get("nmi")
    if value is not None and value > own + MARGIN:
        found.append(
            Finding(
                "look",
                "The embedding knows more than the labels",
                f"k-means on what the network has learnt reaches NMI {value:.3f}, the run's own labels {own:.3f}.",
                "deepclust fit kmeans --data RUN/embeddings.npz gives those labels; longer training may, too.",
            )
        )
    return found


def _seeds(seeds: Seeds | None) -> list[Finding]:
    """Luck."""
    if seeds is None or not seeds.agreement:
        return []
    agreement = statistics.fmean(seeds.agreement)
    spread = seeds.mean("nmi")
    several = f"{len(seeds.metrics)} runs that differ by their random numbers alone"
    if agreement >= AGREEMENT and (spread is None or spread[1] <= SPREAD):
        return [
            Finding("good", "Seeds agree", f"The labels of {several} agree well (mean NMI of pairs {agreement:.2f}).")
        ]
    text = f"The labels of {several} agree by NMI {agreement:.2f} in the mean; 1 would be the same clusters."
    if spread is not None:
        text += f" Their NMI with the classes is {spread[0]:.3f} +- {spread[1]:.3f}."
    return [
        Finding(
            "bad" if agreement < 0.5 else "look",
            "Seeds disagree",
            f"{text} What one run shows may be luck.",
            "Trust groups that several seeds find. Train longer, or take fewer clusters, and compare again.",
        )
    ]


def _training(run: Run) -> list[Finding]:
    """A run that was not at its end."""
    churn = [record["churn"] for record in run.epochs if record.get("churn") is not None]
    if not churn or churn[-1] <= RESTLESS:
        return []
    return [
        Finding(
            "look",
            "The labels were still moving",
            f"At the last look {100 * churn[-1]:.0f} % of the images had changed their cluster since the one before.",
            "Train longer (--epochs); where the learning rate falls by a schedule, that helps most.",
        )
    ]


def _data(run: Run, known: Known) -> list[Finding]:
    """What of the data is missing or apart."""
    found = [Finding("look", "Something of the data is missing here", remark) for remark in known.remarks]
    bounded = (run.config.get("parameters") or {}).get("max_memory") is not None
    if run.embeddings is None and bounded:
        found.append(
            Finding(
                "look",
                "No embeddings",
                "The run had a bound of memory: its embeddings are in the file of its data alone, and there are no map "
                "and no neighbours.",
                "deepclust fit with a sample of the rows, without --max-memory, shows both.",
            )
        )
    elif run.embeddings is None:
        found.append(
            Finding(
                "look",
                "No embeddings",
                "embeddings.npz is not in the run's folder or not of this run: there are no map and no neighbours.",
                "Run the same fit command again with --resume auto: it writes the file anew.",
            )
        )
    skipped = int(run.metrics.get("n_skipped") or 0)
    if skipped:
        files = "1 file was" if skipped == 1 else f"{skipped} files were"
        found.append(Finding("look", f"{files} left out", "skipped.csv in the run's folder says which, and why."))
    apart = float((run.labels == APART).mean())
    if apart > 0:
        text = "They were not sure enough for any cluster, or in clusters that are too small."
        found.append(Finding("look", f"{100 * apart:.1f} % of the images are in no cluster", text))
    classes = len(known.class_names)
    asked = int(run.metrics.get("n_clusters") or 0)
    if classes and asked and classes != asked:
        found.append(
            Finding(
                "look",
                f"{asked} clusters, {classes} classes",
                "Scores that match clusters to classes one to one (ACC) cannot reach 1; NMI and purity can be read "
                "all the same.",
            )
        )
    return found
