"""Makes the README's benchmark table from the JSON that `deepclust bench --json FILE` writes.

python benchmarks/report.py results.json            prints the table
python benchmarks/report.py results.json README.md  puts it between the file's benchmark markers
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

BEGIN, END = "<!-- benchmark table: begin -->", "<!-- benchmark table: end -->"


def table(data: dict) -> str:
    """A Markdown table, a row for each case and opponent, and the machine it was taken on."""
    machine = data["machine"]
    lines = [
        f"{machine['threads']} threads of {machine['cpu']} ({machine['simd']}), torch {machine['torch']}, float32,",
        "forward + backward where there is a gradient, medians of alternating turns:",
        "",
        "| Op | Size | ours | opponent | time | ratio | target |",
        "|---|---|---:|---|---:|---:|---:|",
    ]
    for result in data["results"]:
        ours = result["microseconds"]["ours"]
        for name, ratio in result["ratios"].items():
            target = result["targets"].get(name)
            lines.append(
                f"| `{result['op']}` | {result['label']} | {duration(ours)} | {name} | "
                f"{duration(result['microseconds'][name])} | {ratio:.1f}x | {f'{target:g}x' if target else ''} |"
            )
    return "\n".join(lines)


def duration(microseconds: float) -> str:
    """Three significant digits, in ms or s."""
    return f"{microseconds / 1e6:.3g} s" if microseconds >= 1e6 else f"{microseconds / 1000:.3g} ms"


def main(arguments: list[str]) -> None:
    """Print the table, or write it into a file."""
    text = table(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    if len(arguments) == 1:
        sys.stdout.write(text + "\n")
        return
    page = Path(arguments[1])
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
