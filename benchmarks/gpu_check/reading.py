"""What a part found out, from the result it left or from its output."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.parts import Part

NOTHING = "no test passed"


def read(part: Part, result: Path, output: str) -> dict[str, Any]:
    """What the part found out."""
    if part.result == "output":
        summary = [line.strip("= ") for line in output.splitlines() if "SUMMARY" in line]
        made = any(line.endswith("calls made") for line in summary)
        return {"summary": summary, "reason": "" if made else "the calls were not made; their output is in gpu.log"}
    if part.result == "metrics":
        if "ERR_NVGPUCTRPERM" in output:
            return {"outcome": "left out", "reason": "the GPU's counters are closed to this user"}
        found = metrics(output)
        return {"metrics": found, "reason": "" if found else "no kernel was profiled; its output is in gpu.log"}
    if not result.exists():
        return {"reason": "it wrote no result; its output is in gpu.log"}
    try:
        if part.result == "tests":
            return report(result)
        figures = json.loads(result.read_text(encoding="utf-8"))
    except (ValueError, ElementTree.ParseError) as error:
        return {"reason": f"its result cannot be read: {error}"}
    problems = figures.get("problems", [])
    return {"figures": figures, "reason": "; ".join(problems)}


def report(path: Path) -> dict[str, Any]:
    """How many tests passed, which failed, and why others were skipped, from pytest's XML report."""
    passed, failed, skipped = 0, [], {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        bad = [child for child in case if child.tag in ("failure", "error")]
        skip = case.find("skipped")
        if bad:
            failed.append([name, (bad[0].get("message") or "").splitlines()[0] if bad[0].get("message") else ""])
        elif skip is not None:
            why = skip.get("message") or ""
            skipped[why] = skipped.get(why, 0) + 1
        else:
            passed += 1
    tests = {"passed": passed, "failed": failed, "skipped": skipped}
    reason = f"{len(failed)} tests failed" if failed else "" if passed else NOTHING
    return {"tests": tests, "reason": reason}


def metrics(output: str) -> list[dict[str, str]]:
    """Nsight Compute's rows: kernel, metric, unit, value. Lines of the program and of ncu itself stand between them."""
    lines = output.splitlines()
    head = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if head is None:
        return []
    rows = csv.DictReader(line for line in lines[head:] if line.startswith('"'))
    keys = ("ID", "Kernel Name", "Metric Name", "Metric Unit", "Metric Value")
    return [{key: row[key] for key in keys} for row in rows if row.get("Metric Name")]
