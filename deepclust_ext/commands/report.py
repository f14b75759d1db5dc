"""`deepclust report RUN`: one HTML page to look at a finished run, and its plots as PNG files."""

from __future__ import annotations

from pathlib import Path

from deepclust_ext.commands._parser import Parser, UsageError
from deepclust_ext.report import Options, write_report


def run(words: list[str]) -> int:
    """Run `deepclust report` on the words after it."""
    parser = Parser(
        prog="deepclust report",
        description="Write RUN/report.html, one page that opens offline in any browser: warnings, scores, images of "
        "each cluster, a map, curves and neighbours; and the plots as PNG files in RUN/report.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or of fit --seeds")
    parser.add_argument("--out", metavar="FILE", help="the page (default: RUN/report.html); plots go beside it")
    parser.add_argument("--data", help="the images of the run, if they are not where they were")
    parser.add_argument("--images", metavar="FOLDER", help="of runs on embeddings: where the paths in labels.csv start")
    parser.add_argument("--folder-labels", action="store_true", help="sub-folders are classes")
    parser.add_argument("--labels", metavar="CSV", help="classes by the columns path and label, by their names")
    parser.add_argument("--head", type=int, metavar="H", help="the clusters of this head in place of the chosen one")
    parser.add_argument("--seed", type=int, metavar="S", help="of several seeds, the one to show (default: the lowest)")
    parser.add_argument("--umap", action="store_true", help="a map by UMAP, too (pip install 'deepclust_ext[report]')")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    found = parser.parse_args(words)
    out = None if found.out is None else Path(found.out)
    if out is not None and (out.is_dir() or out.suffix.lower() not in (".html", ".htm")):
        raise UsageError(f"--out must be the name of an .html file, got {found.out!r}")
    options = Options(found.data, found.images, found.folder_labels, found.labels, found.head, found.seed, found.umap)
    page = write_report(Path(found.run), options, out)
    if not found.quiet:
        print(f"page: {page}")
    return 0
