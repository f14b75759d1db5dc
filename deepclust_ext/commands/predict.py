"""`deepclust predict RUN --data DATA`: label new images with a finished run."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from deepclust_ext.commands._append import append_rows, check_only_new, labelled_names
from deepclust_ext.commands._export import EXPORTS, check_export, export, export_beside
from deepclust_ext.commands._formats import Labelled, parse_formats, write_formats
from deepclust_ext.commands._parser import Parser, UsageError
from deepclust_ext.commands._run import load, open_for_reading
from deepclust_ext.commands._show import note
from deepclust_ext.data import ImageData, Items, holds_embeddings, load_data
from deepclust_ext.data.reading import FRAMES
from deepclust_ext.data.source import Source
from deepclust_ext.data.walk import list_files
from deepclust_ext.embed import EmbeddedImages
from deepclust_ext.methods import Clusterer
from deepclust_ext.runs import RunError, atomic_writer, labels_csv


def run(words: list[str]) -> int:
    """Run `deepclust predict` on the words after it."""
    parser = Parser(prog="deepclust predict", description="Label new images with a finished run.")
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--data",
        required=True,
        help="folder, archive or file of images, file of embeddings, or name of a data set",
    )
    parser.add_argument("--out", help="CSV file to write, - for standard output (default: RUN/predictions.csv)")
    parser.add_argument("--split", choices=("train", "test", "all"), default="train", help="part of the data")
    parser.add_argument("--image-size", type=int, help="scale and crop to this size (default: as the run did)")
    parser.add_argument("--max-pixels", type=int, help="read images of up to so many pixels")
    parser.add_argument("--stretch", type=int, help="value of 16-bit pixels that is white (default: as the run did)")
    parser.add_argument("--frames", choices=FRAMES, help="what of files with several frames (default: as the run did)")
    parser.add_argument("--weights", help="the backbone's weights, if they are not where they were")
    parser.add_argument("--export", choices=EXPORTS, help="sort the files into clusters/K beside OUT too")
    parser.add_argument("--format", help="write the labels as parquet or fiftyone (JSON) beside OUT too, or as both")
    parser.add_argument("--min-confidence", type=float, help="less sure labels become -1 (default: as the run did)")
    parser.add_argument(
        "--only-new",
        action="store_true",
        help="label the images whose path is neither in OUT nor, of the run's own data, in its labels.csv; append them",
    )
    parser.add_argument("--no-cache", action="store_true", help="do not keep scaled images beside RUN")
    parser.add_argument("--device", help="cpu or cuda (default: as the run did)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    found = parser.parse_args(words)
    if found.only_new:
        check_only_new(found.export or found.format, found.out)
    folder = open_for_reading(found.run)
    out = folder.path / "predictions.csv" if found.out is None else Path(found.out)
    if found.out != "-":
        _check_out(out)
    fitted_on = folder.read_config().get("data") or {}
    request = fitted_on.get("request") or {}
    asked = {name: getattr(found, name) for name in ("image_size", "max_pixels", "frames", "stretch")}
    # What is not said is as it was for the run; runs of older versions say less.
    given = {name: request[name] if value is None else value for name, value in asked.items() if name in request}
    source = Source(found.data, found.split, **{n: v for n, v in {**asked, **given}.items() if v is not None})
    if request.get("backbone") and not holds_embeddings(found.data):
        source = replace(source, backbone=request["backbone"], weights=found.weights or request["weights"])
    elif found.weights is not None:
        raise UsageError("--weights must come with images for a run with a backbone")
    if found.export:
        if found.out == "-":
            raise UsageError("--export must come with a file in --out, got -")
        check_export(source, export_beside(out), found.export)
    formats = parse_formats(found.format)
    if formats and found.out == "-":
        raise UsageError("--format must come with a file in --out, got -")

    replaced = {"device": found.device, "min_confidence": found.min_confidence}
    known = labelled_names(out, folder, source, request) if found.only_new else set()
    # Before anything is decoded.
    if known and source.folder is not None and known.issuperset(list_files(source.folder)[0]):
        return _nothing_new(found.quiet, out)
    method = Clusterer.load(found.run, **{name: value for name, value in replaced.items() if value is not None})
    method.check_limits()
    loaded = load(
        source,
        min_images=1,
        beside=None if found.no_cache else folder.path,
        quiet=found.quiet,
        runs=[folder.path],
        device=method.device,
        without=known,
    )
    if isinstance(loaded, EmbeddedImages) and loaded.network != fitted_on.get("network"):
        raise RunError(
            f"predict: the run in {found.run!r} was fitted on embeddings of a network with other weights than "
            f"{source.weights or source.backbone!r} has; pass --weights with those"
        )
    images = fitting(loaded, method.image_shape_)
    if known:
        new = [i for i, name in enumerate(images.names) if name not in known]
        if not new:
            return _nothing_new(found.quiet, out)
        images = images.subset(new)
    placement = method.place(images)
    labels = placement.labels(method.min_confidence)
    content = labels_csv(images.names, labels, placement.confidence, placement.columns())
    if found.out == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return 0
    if found.only_new:
        append_rows(out, content)
    else:
        with atomic_writer(out) as file:
            file.write(content)
    write_formats(formats, out, Labelled(images.names, labels, placement.confidence))
    if found.export:
        export(source, images, labels, export_beside(out), found.export)
    if not found.quiet:
        used = len(set(placement.clusters.tolist()))
        unsure = f", {(labels < 0).sum()} unsure" if method.min_confidence is not None else ""
        which = "new " if found.only_new else ""
        print(f"{len(images)} {which}{images.kind}, {used} of {method.n_found} clusters{unsure}; labels: {out}")
    return 0


def _nothing_new(quiet: bool, out: Path) -> int:
    """Say that all images have a label."""
    if not quiet:
        print(f"0 new images; labels: {out}")
    return 0


def _check_out(out: Path) -> None:
    """Refuse a file that could not be written, before the work and not after it."""
    if out.is_dir():
        raise UsageError(f"--out must be a file, got the folder {str(out)!r}")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UsageError(f"--out must be in a folder that is there and can be written, got {str(out)!r}")


def fitting(images: Items, shape: tuple[int, ...]) -> Items:
    """Give images the run's channels; refuse another size, which nobody should change unasked."""
    if not isinstance(images, ImageData) or len(shape) == 1:
        # Of embeddings nothing can be changed: the method says what does not fit.
        return images
    channels, height, width = shape
    if images.image_shape[1:] != (height, width):
        hint = f"; --image-size {height} scales and crops them" if height == width else ""
        raise ValueError(
            f"predict: the images must be {height}x{width} pixels like the run's, got "
            f"{images.image_shape[1]}x{images.image_shape[2]} in {images.source}{hint}"
        )
    if images.image_shape[0] == channels:
        return images
    kind = "grey" if channels == 1 else "colour"
    note(f"the images are made {kind}, as the run's are")
    return load_data(images, channels=channels, min_images=1)
