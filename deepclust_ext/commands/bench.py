"""`deepclust bench [OP ...]`: time the kernels against plain PyTorch on this machine."""

from __future__ import annotations

from deepclust_ext.commands._parser import Parser


def run(words: list[str]) -> int:
    """Run `deepclust bench` on the words after it."""
    from deepclust_ext import benchmark

    parser = Parser(prog="deepclust bench", description="Time the kernels against plain PyTorch on this machine.")
    parser.add_argument("ops", metavar="OP", nargs="*", help=f"{', '.join(benchmark.OPS)} (default: all)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    found = parser.parse_args(words)
    return int(benchmark.main(found.ops, json_path=found.json, device=found.device))
