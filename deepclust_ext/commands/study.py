"""`deepclust study KIND`: DeepCluster's experiments, as tables and files."""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepclust_ext._optional import require
from deepclust_ext.commands._arguments import option
from deepclust_ext.commands._options import AUTO, FitRequest, parse_fit
from deepclust_ext.commands._parser import Parser, UsageError
from deepclust_ext.commands._run import load
from deepclust_ext.commands._show import figure, note, table
from deepclust_ext.data import ImageData
from deepclust_ext.data.source import Source
from deepclust_ext.methods import DeepCluster
from deepclust_ext.training.progress import Show
from deepclust_ext.training.seeds import derive_generator

# What each kind sweeps, and the values it takes by default: the paper's for Fashion-MNIST.
KINDS: dict[str, tuple[str, str]] = {
    "alignment": ("", ""),
    "clusters": ("n_clusters", "5,10,20,200"),
    "components": ("n_components", "off,40,60"),
    "halting": ("halt_after", "1,10,30,off"),
}

# Formats of `plot_alignment`.
PLOTS = (".png", ".svg", ".pdf")

_USAGE = f"""usage: deepclust study KIND --data DATA --out DIR [options] [options of deepclust fit deepcluster]

Experiments with DeepCluster on data with classes, which only measure.

KIND is one of: {", ".join(KINDS)}
  alignment   NMI between the classes and the clusters of untrained networks, over many seeds:
              its distribution for every K of --values and every number of --components
  clusters    runs for every K of --values, with linear probes
  components  runs for every number of PCA components of --values ("off" is no PCA)
  halting     runs that stop clustering after as many cycles as --values say ("off" never does)

deepclust study KIND --help lists the options of a kind; what is left goes to deepclust fit deepcluster."""


def run(words: list[str]) -> int:
    """Run `deepclust study` on the words after it."""
    if words and words[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if not words or words[0] not in KINDS:
        found = f"got {words[0]!r}" if words else "got nothing"
        raise UsageError(f"study: KIND must come first and be one of {', '.join(KINDS)}, {found}")
    kind = words[0]
    options, rest = _parser(kind).parse_known_args(words[1:])
    request = parse_fit("deepcluster", rest)
    for name, given in (("export", request.export), ("format", request.formats), ("tensorboard", request.tensorboard)):
        if given:
            raise UsageError(f"study: --{name} is no option of it")
    # "auto" is what a sweep does, and what a message about one that was stopped asks for.
    if request.resume not in ((False,) if kind == "alignment" else (False, "auto")):
        how = "an alignment starts anew" if kind == "alignment" else "a sweep always goes on where it stopped"
        raise UsageError(f"study: --resume must be left out, as {how}")
    if request.parameters["n_clusters"] == AUTO:
        raise UsageError("study: --clusters must be a number, got auto")
    _check_swept(request, kind, options)
    _check_out(request.out)
    return _alignment(request, options) if kind == "alignment" else _sweep(request, kind, options)


def _parser(kind: str) -> Parser:
    """The study's own options."""
    parser = Parser(
        prog=f"deepclust study {kind}",
        description="Besides these, the options of deepclust fit deepcluster: --data, --out, --config, --seeds, --set.",
    )
    values = KINDS[kind][1]
    if kind == "alignment":
        parser.add_argument("--values", help="numbers of clusters (default: --clusters)")
        parser.add_argument("--components", help='numbers of PCA components, "off" for none')
        parser.add_argument("--labelled", type=int, help="use the classes of so many images only")
        parser.add_argument("--plot", help="an image file for the histograms; needs the extra report")
    else:
        parser.add_argument("--values", default=values, help=f"default: {values}")
        parser.add_argument("--layers", help='layers to probe, or "all" (default: the topmost convolution)')
    return parser


def _alignment(request: FitRequest, options: Any) -> int:
    """Distributions of the initial alignment."""
    from deepclust_ext.runs.atomic import write_text
    from deepclust_ext.runs.marker import make_folder
    from deepclust_ext.study import initial_alignment, plot_alignment, select_alignment

    clusters = None if options.values is None else [_whole(value) for value in parse_values(options.values)]
    components = None if options.components is None else parse_values(options.components, "--components")
    if options.plot is not None:
        _check_plot(options.plot, request.out)
    model, images = _model(request), _with_classes(request.source)
    found = initial_alignment(
        model,
        images,
        n_clusters=clusters,
        n_components=components,
        seeds=range(100) if request.seeds is None else request.seeds,
        labelled=_some_labelled(options.labelled, images, model.seed),
        say=None if request.quiet else lambda line: print(line, file=sys.stderr, flush=True),
    )
    out = Path(request.out)
    make_folder(out)
    record = {"data": images.source, "digest": images.digest, "settings": [one.record() for one in found]}
    write_text(out / "alignment.json", json.dumps(record, indent=1) + "\n")
    if options.plot is not None:
        plot_alignment(found, options.plot)
    rows = [
        (
            str(one.n_clusters),
            _word(one.n_components),
            *(figure(one.quantile(share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)),
            str(len(one.seeds)),
        )
        for one in found
    ]
    print(table(("K", "PCA", "lowest", "25 %", "median", "75 %", "highest", "networks"), rows))
    if len(found) > 1:
        best = select_alignment(found)
        print(f"largest median: K = {best.n_clusters}, PCA {_word(best.n_components)}")
    return 0


def _sweep(request: FitRequest, kind: str, options: Any) -> int:
    """Runs that differ in one parameter."""
    from deepclust_ext.evaluate.layers import layer_names
    from deepclust_ext.study import sweep
    from deepclust_ext.study.sweep import untrained_net

    values, model = parse_values(options.values), _model(request)
    if kind == "clusters":
        values = [_whole(value) for value in values]
    if request.seeds is None and model.seed != 0:
        raise UsageError(
            f"study: the runs' seeds must be given by --seeds, got --seed {model.seed}; write --seeds {model.seed}"
        )
    train = _with_classes(request.source)
    if not request.source.has_test():
        raise UsageError("study: --data must have test images with classes for the probes, and --split be train")
    source = request.source
    test = _with_classes(Source(source.data, "test", source.image_size, source.folder_labels))
    layers: Sequence[str] | None = None
    if options.layers is not None:
        model.check(train)
        layers = layer_names(untrained_net(model, train)) if options.layers == "all" else options.layers.split(",")
    runs = sweep(
        model,
        KINDS[kind][0],
        values,
        train,
        test,
        seeds=range(3) if request.seeds is None else request.seeds,
        out=request.out,
        layers=layers,
        progress=lambda name: _progress(request, name),
    )
    names = list(runs[0].probes)
    rows = []
    for value in dict.fromkeys(one.value for one in runs):
        group = [one for one in runs if one.value == value]
        rows.append(
            (
                _word(value),
                spread([one.initial_alignment for one in group]),
                spread([one.nmi for one in group]),
                *(spread([one.probes[name] for one in group]) for name in names),
                *(spread([one.untrained[name] for one in group]) for name in names),
                str(len(group)),
            )
        )
    header = (KINDS[kind][0], "IA", "NMI", *(f"probe {n}" for n in names), *(f"untrained {n}" for n in names), "runs")
    print(table(header, rows))
    return 0


def parse_values(text: str, name: str = "--values") -> list[int | None]:
    """Turn "off,40,60", given to the option `name`, into [None, 40, 60].

    Examples
    --------
    >>> parse_values("1,10,off")
    [1, 10, None]
    """
    found: list[int | None] = []
    for word in text.split(","):
        word = word.strip()
        # As many digits as an int64 has: there are no more images.
        if word != "off" and not re.fullmatch("[0-9]{1,18}", word):
            raise UsageError(f'{name} must be whole numbers or "off", separated by commas, got {text!r:.60}')
        found.append(None if word == "off" else int(word))
    if len(set(found)) < len(found):
        raise UsageError(f"{name} must hold every value once, got {text!r}")
    return found


def spread(values: Sequence[float]) -> str:
    """Mean +- standard deviation."""
    mean = statistics.fmean(values)
    return f"{mean:.4f}" if len(values) == 1 else f"{mean:.4f} +- {statistics.stdev(values):.4f}"


def _check_swept(request: FitRequest, kind: str, options: Any) -> None:
    """Refuse a value of what is swept: it would be lost without a word."""
    swept = {KINDS[kind][0]: "--values"}
    if kind == "alignment":
        swept = {"n_clusters": "--values"} if options.values is not None else {}
        swept |= {"n_components": "--components"} if options.components is not None else {}
    for parameter, by in swept.items():
        if parameter in request.typed:
            raise UsageError(f"study: {option(parameter)} must be left out where {by} gives its values")


def _whole(value: int | None) -> int:
    """A number of clusters, which cannot be off."""
    if value is None:
        raise UsageError("--values must be numbers of clusters, got 'off'")
    return value


def _check_out(out: str) -> None:
    """Refuse what cannot become a folder with files, before the work and not after it."""
    if Path(out).exists() and not Path(out).is_dir():
        raise UsageError(f"--out must be a folder, got the file {out!r}")
    there = next(folder for folder in (Path(out), *Path(out).absolute().parents) if folder.exists())
    if not os.access(there, os.W_OK):
        raise UsageError(f"--out must be a folder that can be written, got {out!r}")


def _check_plot(plot: str, out: str) -> None:
    """Refuse an image file that could not be written."""
    path = Path(plot)
    if path.suffix.lower() not in PLOTS:
        raise UsageError(f"--plot must end in {', '.join(PLOTS[:-1])} or {PLOTS[-1]}, got {plot!r}")
    if not path.parent.is_dir() and path.parent.resolve() != Path(out).resolve():
        raise UsageError(f"--plot must be in a folder that is there, or in --out, got {plot!r}")
    require("matplotlib", "report")


def _word(value: int | None) -> str:
    """None as it is written on the command line."""
    return "off" if value is None else str(value)


def _model(request: FitRequest) -> DeepCluster:
    """The method of the request."""
    model = request.build()
    assert isinstance(model, DeepCluster)
    return model


def _with_classes(source: Source) -> ImageData:
    """Images with classes, which every study needs."""
    images = load(source)
    if not isinstance(images, ImageData):
        raise UsageError(f"study: --data must be images, got {images.kind} from {images.source}")
    if images.labels is None:
        raise UsageError("study: --data must have classes; for a folder, --folder-labels takes its sub-folders' names")
    return images


def _some_labelled(count: int | None, images: ImageData, seed: int) -> Any:
    """Rows whose classes may be used, drawn from the seed."""
    if count is None:
        return None
    if not 2 <= count <= len(images):
        raise UsageError(f"--labelled must be between 2 and the number of images ({len(images)}), got {count}")
    order = torch.randperm(len(images), generator=derive_generator(seed, "labelled"))
    return np.sort(order[:count].numpy())


def _progress(request: FitRequest, name: str) -> Show:
    """A line every few seconds, unless it should be quiet or a bar was asked for."""
    if request.quiet and not request.progress:
        return False
    note(name)
    return True if request.progress else lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True)
