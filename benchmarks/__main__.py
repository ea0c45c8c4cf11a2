"""Time the platform against plain implementations: `python -m benchmarks [NAME ...]`.

Every benchmark keeps its own plain baseline, compares the results of both sides where they have
any, and times them in turn on one thread. The exit code is 1 if sides differ, or if a row is worse
than that of the run it is compared with (`--compare`), beyond the spread of both.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

for _threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_threads] = "1"  # numpy and torch read them when they are imported

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None, extra: Mapping[str, ModuleType] | None = None) -> int:
    """Run the program; `extra` are further benchmarks by name, which tests add."""
    added = dict(extra or {})
    speed = {**programs(HERE / "speed"), **{n: about(m.__doc__) for n, m in added.items()}}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks; default: all")
    parser.add_argument("--list", action="store_true", help="name the programs of both kinds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the run to a file")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with an earlier run")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="comparisons whose titles hold it"
    )
    options = parser.parse_args(arguments)
    if options.list:
        list_programs(speed)
        return 0
    if unknown := [name for name in options.names if name not in speed]:
        others = programs(HERE)
        hint = (
            f"run it as python -m benchmarks.{unknown[0]}"
            if unknown[0] in others
            else (f"choose from {', '.join(speed)}")
        )
        parser.error(f"there is no speed benchmark {unknown[0]!r}; {hint}")
    if options.json and not options.json.resolve().parent.is_dir():
        parser.error(f"--json is {options.json}, but there is no folder {options.json.parent}")
    if options.json and options.json.is_dir():
        parser.error(f"--json is {options.json}, which is a folder; give the file to write")
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; it must be at least 1")
    from benchmarks import report

    then = report.read(options.compare) if options.compare else None
    results = run(options, options.names or list(speed), added)
    if options.only and not results.rows:
        parser.error(f"no comparison that was asked for has {options.only!r} in its title")
    if options.json:
        report.write(results, options.json)
    worse: list[str] = []
    if then is not None:
        print(f"\ncompared with {options.compare}:", *report.conditions(then, results), sep="\n")
        lines, worse = report.compared(then.rows, results.rows)
        print(f"\n{report.COMPARED}", *lines, sep="\n")
    failed = [row for row in results.rows if row.failure]
    for row in failed:
        print(f"failed: {row.benchmark}: {row.name}: {row.failure}", file=sys.stderr)
    if worse:
        print(f"worse beyond the spread: {'; '.join(worse)}", file=sys.stderr)
    return 1 if failed or worse else 0


def run(options: argparse.Namespace, names: list[str], added: Mapping[str, ModuleType]) -> Any:
    """Run benchmarks and print their rows as they come; return a `Results`."""
    import torch

    from avplatform.base.machine import cpu_has_bf16, describe
    from benchmarks import report, timing

    torch.set_num_threads(1)
    bf16 = cpu_has_bf16()
    kinds = ["float32", *(["bfloat16"] if bf16 else []), "copy"]
    machine = {**describe(), "threads": str(torch.get_num_threads())}
    machine["command"] = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    results = timing.Results(machine=machine, rounds=options.rounds)
    results.peaks = timing.peaks(kinds)
    results.machine["load"] = list(os.getloadavg())
    said = ", ".join(
        f"{kind} {value:.0f} {timing.KINDS[kind]}" for kind, value in results.peaks.items()
    )
    print(f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, 1 thread; {said}")
    if not bf16:
        note(results, "rows of bf16 are left out: this CPU has neither avx512_bf16 nor AMX")
    if results.machine["load"][0] > 0.5:
        note(
            results, f"the machine is busy (load {machine['load'][0]:.1f}): ratios are less certain"
        )
    for name in names:
        for row in rows_of(name, added, options, results):
            results.rows.append(row)
            print(report.line(row), flush=True)
            if options.json:
                report.write(results, options.json)
    return results


def rows_of(
    name: str, added: Mapping[str, ModuleType], options: argparse.Namespace, results: Any
) -> Iterator[Any]:
    """Yield the rows of a benchmark; those of a part that raises an error end with its reason."""
    from benchmarks import report, timing

    try:
        module = added.get(name) or importlib.import_module(f"benchmarks.speed.{name}")
        if reason := getattr(module, "left_out", lambda: "")():
            note(results, f"{name} is left out: {reason}")
            return
        print(f"\n{name}\n\n{report.TABLE}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            bf16 = "bfloat16" in results.peaks
            parts = module.comparisons(timing.Setting(folder=Path(folder), bf16=bf16))
            for title, make in parts.items():
                if options.only in title:  # what is not asked for need not be prepared
                    yield from part_rows(name, title, make, options.rounds)
    except Exception as error:  # whatever one benchmark raises, the others go on
        yield timing.failed(name, name, error)


def part_rows(name: str, title: str, make: Any, rounds: int) -> Iterator[Any]:
    """Yield the rows of a part of a benchmark, up to the reason of its error if it raises one."""
    from benchmarks import timing

    try:
        for item in make():
            yield from timing.rows(name, item, rounds)
    except Exception as error:  # whatever one part raises, the others go on
        yield timing.failed(name, title, error)


def note(results: Any, text: str) -> None:
    """Print a note and keep it with the results."""
    results.notes.append(text)
    print(f"note: {text}")


def programs(folder: Path) -> dict[str, str]:
    """Return the programs in a folder by name, with what they do; they are not imported."""
    found = {}
    for file in sorted(folder.glob("[!_]*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}
        if names & {"main", "comparisons"}:
            found[file.stem] = about(ast.get_docstring(tree))
    return found


def about(doc: str | None) -> str:
    """Return the first line of a docstring, without the command that it names."""
    return (doc or "").strip().split("\n")[0].split(": `")[0].rstrip(".")


def list_programs(speed: Mapping[str, str]) -> None:
    """Print both kinds of programs."""
    print("speed, timed against a plain baseline: python -m benchmarks NAME ...")
    for name, text in speed.items():
        print(f"  {name:<20} {text}")
    print("\nother programs, each with its own options: python -m benchmarks.NAME --help")
    for name, text in programs(HERE).items():
        print(f"  {name:<20} {text}")


if __name__ == "__main__":
    sys.exit(main())
