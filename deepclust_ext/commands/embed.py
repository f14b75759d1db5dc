"""`deepclust embed --backbone NAME --data photos/ --out embeddings.npz`: features of a pretrained network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from deepclust_ext.commands._parser import Parser, UsageError
from deepclust_ext.commands._run import say_skipped, showing
from deepclust_ext.commands._show import note
from deepclust_ext.data.reading import FRAMES
from deepclust_ext.embed import embed, load_backbone, load_embedded
from deepclust_ext.runs import write_csv

_EPILOG = """NAME is a network of torchvision or timm (torchvision:NAME, timm:NAME say which), or module:callable, where
the callable returns a torch.nn.Module. Called again with the same --out, only new and changed files are embedded, and a
call that was killed goes on where it was."""


def run(words: list[str]) -> int:
    """Run `deepclust embed` on the words after it."""
    parser = Parser(prog="deepclust embed", description="Embed images by a pretrained network.", epilog=_EPILOG)
    parser.add_argument("--backbone", required=True, metavar="NAME", help="the network")
    parser.add_argument(
        "--weights",
        help="file of weights (.pth, .safetensors), name of some to download (default: the best), or random",
    )
    parser.add_argument("--data", required=True, help="folder, archive or file of images, or name of a data set")
    parser.add_argument("--out", required=True, help="file to write or to bring up to date, .npz: data of fit")
    parser.add_argument("--split", choices=("train", "test", "all"), default="train", help="part of the data")
    parser.add_argument("--image-size", type=int, help="size of the network's images (default: its own)")
    parser.add_argument("--folder-labels", action="store_true", help="sub-folders are classes, for scores only")
    parser.add_argument("--max-pixels", type=int, help="read images of up to so many pixels")
    parser.add_argument("--stretch", type=int, help="value of 16-bit pixels that is white")
    parser.add_argument("--frames", choices=FRAMES, default="first", help="what of files with several frames")
    parser.add_argument("--batch", type=int, help="images at once (default: 256 on a GPU, 32 without)")
    parser.add_argument(
        "--half", choices=("auto", "true", "false"), default="auto", help="half precision (default: on a GPU)"
    )
    parser.add_argument("--device", default="auto", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    found = parser.parse_args(words)
    out = Path(found.out)
    _check_out(out)
    backbone = load_backbone(found.backbone, weights=found.weights, image_size=found.image_size, device=found.device)
    images = embed(
        found.data,
        backbone,
        out=out,
        split=found.split,
        folder_labels=found.folder_labels,
        max_pixels=found.max_pixels,
        frames=found.frames,
        stretch=found.stretch,
        batch=found.batch,
        half={"auto": None, "true": True, "false": False}[found.half],
        progress=showing(found.quiet),
    )
    if images.skipped:
        write_csv(out.with_name(f"{out.stem}-skipped.csv"), ("path", "reason"), images.skipped)
    say_skipped(images)
    if not found.quiet:
        print(f"{images.summary}; embeddings: {out}")
    return 0


def _check_out(out: Path) -> None:
    """Refuse a file that could not be written or is something else, before the work and not after it."""
    if out.suffix != ".npz" or out.is_dir():
        raise UsageError(f"--out must be a file that ends in .npz, got {str(out)!r}")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UsageError(f"--out must be in a folder that is there and can be written, got {str(out)!r}")
    if out.exists():
        known: Any = None
        try:
            known = load_embedded(out)
        except (ValueError, OSError, KeyError) as error:
            raise UsageError(f"--out must be new, or a file that embed wrote, got {str(out)!r}") from error
        if known.stamps is None:
            raise UsageError(f"--out must be new, or a file that embed wrote, got embeddings of others in {str(out)!r}")
        note(f"{str(out)!r} has {len(known)} embeddings, which are taken where the files and the network are the same")
