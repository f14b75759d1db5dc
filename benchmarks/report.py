"""Makes the tables of speed from the JSON that `deepclust bench --json FILE` writes.

python benchmarks/report.py results.json ...                             prints both tables
python benchmarks/report.py results.json ... README.md benchmarks/results/speed.md
                                                                         puts the short one between README's markers,
                                                                         and writes the page of the long one

Of several files, from several levels or machines, the short table has a group of columns each, and the page a section.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

BEGIN, END = "<!-- benchmark table: begin -->", "<!-- benchmark table: end -->"
# Rows of the short table, shared evenly among the ops.
ROWS = 12
# Each peer under one name, whatever the benchmark of an op calls it. What is not here keeps its name.
PEERS = {
    "torch": "plain torch",
    "compiled": "plain torch, compiled",
    "product form": "plain torch, product form",
    "outer product": "plain torch, outer product",
    "batched": "plain torch, batched",
    "loop over pairs": "plain torch, loop over pairs",
    "attention": "torch's attention",
    "tiles": "plain torch, tiles",
    "matrix form": "plain torch, matrix form",
    "gathered": "plain torch, gathered",
}
PAGE = """# Speed

`make bench` writes this page: `deepclust bench` measures, at the processor's best level and with `--simd avx2` held to
that one, and `benchmarks/report.py` makes the tables, of another machine's file too: each section names its machine and
the switches that held it, if some did. superkmeans and scikit-learn-intelex cannot be held: they use all that the
processor has. In each case all results are first checked for agreement; then ours and the peers are timed in
alternating turns. The ratio is the peer's time divided by ours: above 1, ours is faster.

"""


def short_table(*measured: dict) -> str:
    """A Markdown table of some cases of each op, from the lowest ratio to the highest, each beside its best peer.

    The cases are those of the first file; the others add their columns to them.
    """
    by_op: dict[str, list[dict]] = {}
    for result in _timed(measured[0]):
        by_op.setdefault(result["op"], []).append(result)
    columns = "".join(f" {level(data['machine'])} | best peer | its time | ratio |" for data in measured)
    lines = [
        *_measured(*measured),
        f"| Op | Size |{columns}",
        "|---|---|" + "---:|---|---:|---:|" * len(measured),
    ]
    for results in by_op.values():
        for result in spread(results, max(1, ROWS // len(by_op))):
            cells = "".join(_cells(_same_case(data, result)) for data in measured)
            lines.append(f"| `{result['op']}` | {result['label']} |{cells}")
    return "\n".join(lines)


def long_table(data: dict) -> str:
    """A Markdown table with a row for each case and peer."""
    lines = [
        *_measured(data),
        "| Op | Size | ours | peer | its time | ratio |",
        "|---|---|---:|---|---:|---:|",
    ]
    lines += [_row(result, peer) for result in _timed(data) for peer in result["ratios"]]
    return "\n".join(lines)


def level(machine: dict) -> str:
    """What multiplies: `avx2`, or `avx512 + AMX`."""
    return f"{machine['simd']} + AMX" if machine.get("amx") else machine["simd"]


def best_peer(result: dict) -> str:
    """The fastest of a case's peers, as the JSON names it."""
    return min(result["ratios"], key=result["microseconds"].__getitem__)


def spread(results: list[dict], rows: int) -> list[dict]:
    """At most so many of an op's cases: those of the lowest and of the highest ratio, and evenly between them."""
    if len(results) <= rows:
        return results
    ranked = sorted(range(len(results)), key=lambda i: _margin(results[i]))
    last = len(ranked) - 1
    chosen = {last // 2} if rows == 1 else {i * last // (rows - 1) for i in range(rows)}
    return [results[i] for i in sorted(ranked[place] for place in chosen)]


def duration(microseconds: float) -> str:
    """Three significant digits, in ms or s."""
    return f"{microseconds / 1e6:.3g} s" if microseconds >= 1e6 else f"{microseconds / 1000:.3g} ms"


def write(measured: list[dict], readme: Path, page: Path) -> None:
    """Put the short table between the README's markers, and write the page of the long ones."""
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{short_table(*measured)}\n{END}{after}", encoding="utf-8")
    sections = [f"## {level(data['machine'])}\n\n{long_table(data)}\n" for data in measured]
    page.write_text(PAGE + "\n".join(sections), encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Print the tables, or write them into their files."""
    sources = [word for word in arguments if word.endswith(".json")]
    targets = [Path(word) for word in arguments if not word.endswith(".json")]
    measured = [json.loads(Path(source).read_text(encoding="utf-8")) for source in sources]
    if targets:
        readme, page = targets
        write(measured, readme, page)
    else:
        sys.stdout.write("\n\n".join([short_table(*measured), *map(long_table, measured)]) + "\n")


def _timed(data: dict) -> list[dict]:
    """The cases that have a peer."""
    return [result for result in data["results"] if result["ratios"]]


def _margin(result: dict) -> float:
    """The best peer's ratio."""
    return result["microseconds"][best_peer(result)] / result["microseconds"]["ours"]


def _same_case(data: dict, result: dict) -> dict | None:
    """The case of another file, if it was timed there."""
    same = [each for each in _timed(data) if (each["op"], each["label"]) == (result["op"], result["label"])]
    return same[0] if same else None


def _measured(*measured: dict) -> list[str]:
    """On what, and how."""
    lines = []
    for data in measured:
        machine = data["machine"]
        held = f", held by {', '.join(machine['held'])}" if machine.get("held") else ""
        lines.append(
            f"{machine['threads']} threads of {machine['cpu']} ({level(machine)}{held}), torch {machine['torch']}, "
            "float32;"
        )
    return [*lines, "forward + backward where there is a gradient, medians of alternating turns:", ""]


def _row(result: dict, peer: str) -> str:
    return f"| `{result['op']}` | {result['label']} |{_cells(result, peer)}"


def _cells(result: dict | None, peer: str | None = None) -> str:
    """Our time, and a peer's beside it: the best one's if none is named."""
    if result is None:
        return " | | | |"
    peer, micro = peer or best_peer(result), result["microseconds"]
    return (
        f" {duration(micro['ours'])} | {PEERS.get(peer, peer)} | {duration(micro[peer])} | "
        f"{result['ratios'][peer]:.1f}x |"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
