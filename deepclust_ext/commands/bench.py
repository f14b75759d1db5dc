"""`deepclust bench [OP ...]`: time the kernels against plain PyTorch on this machine."""

from __future__ import annotations

from deepclust_ext.commands._parser import Parser


def run(words: list[str]) -> int:
    """Run `deepclust bench` on the words after it."""
    from deepclust_ext import benchmark
    from deepclust_ext._loader import SIMD_LEVELS

    parser = Parser(prog="deepclust bench", description="Time the kernels against plain PyTorch on this machine.")
    parser.add_argument("ops", metavar="OP", nargs="*", help=f"{', '.join(benchmark.OPS)} (default: all)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--simd", choices=SIMD_LEVELS[:-1], help="hold this library, torch, faiss and scikit-learn to this level"
    )
    found = parser.parse_args(words)
    if found.simd is not None:
        from deepclust_ext.benchmark.held import run_at

        return run_at(found.simd, _without_simd(words))
    return int(benchmark.main(found.ops, json_path=found.json, device=found.device))


def _without_simd(words: list[str]) -> list[str]:
    """The words without `--simd LEVEL` or `--simd=LEVEL`."""
    kept = [word for word in words if not word.startswith("--simd=")]
    if "--simd" in kept:
        at = kept.index("--simd")
        del kept[at : at + 2]
    return kept
