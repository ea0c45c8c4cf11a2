"""`avplatform doctor`: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from avplatform.base.utf8 import print_json
from avplatform.commands.doctor_checks import BROKEN, Line, examine

# Nothing that may be missing or broken is imported here: such is what this command reports.


@dataclass(kw_only=True)
class DoctorOptions:
    """Say what is installed, what is missing, and the command that mends it.

    The exit code is 1 if something that is always needed does not work; nothing secret is printed.
    """

    online: bool = False
    """ask the Hub whether it can be reached, and whether it knows the token"""
    json: bool = False
    """print JSON"""


def run(args: list[str], prog: str) -> int:
    """Print one line for everything that is examined, as soon as it is known."""
    options = _options(args, prog)
    lines: list[Line] = []
    for line in examine(online=options.online):
        if not options.json:
            if not lines or lines[-1].part != line.part:
                print(f"{line.part}:")
            print(text_of(line), flush=True)
        lines.append(line)
    broken = [line.name for line in lines if line.status == BROKEN]
    if options.json:
        print_json({"ok": not broken, "lines": [asdict(line) for line in lines]})
    elif broken:
        print(f"\nnot everything that is always needed works: {', '.join(broken)}")
    else:
        print("\neverything that is always needed works")
    return 1 if broken else 0


def text_of(line: Line) -> str:
    """Return a line for a person: status, name, what was found, and the command that mends it."""
    mended = f"  -> {line.remedy}" if line.remedy else ""
    return f"  {line.status:<8} {line.name:<16} {line.found}{mended}"


def _options(args: list[str], prog: str) -> DoctorOptions:
    try:
        import tyro

        from avplatform.commands.flags import parse_flags
    except Exception:  # the report will say that the reader of flags is missing or broken
        return DoctorOptions(online="--online" in args, json="--json" in args)
    return parse_flags(DoctorOptions, args, prog, config=(tyro.conf.FlagCreatePairsOff,))
