"""`avplatform list`: what there is, by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from avplatform.presets import list_presets
from models.decoders import DECODERS
from models.encoders import ENCODERS
from models.errors import UsageError
from tasks.registry import TASKS


@dataclass(kw_only=True)
class ListOptions:
    """List tasks, encoders, decoders and presets."""

    filter: Annotated[str, tyro.conf.Positional] = ""
    """only names that contain this text"""
    json: bool = False
    """print JSON"""


def run(args: list[str], prog: str) -> int:
    """Print the names."""
    options = tyro.cli(ListOptions, args=args, prog=prog)
    found = {kind: [n for n in names if options.filter in n] for kind, names in everything().items()}
    if not any(found.values()):
        raise UsageError(f"no task, encoder, decoder or preset has '{options.filter}' in its name")
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for kind, names in found.items():
            if names:
                print(f"{kind}:")
                for name in names:
                    print(f"  {name:<28} {about(kind, name)}".rstrip())
    return 0


def everything() -> dict[str, list[str]]:
    """Return all registered names by kind."""
    return {
        "tasks": sorted(TASKS),
        "encoders": sorted(ENCODERS),
        "decoders": sorted(DECODERS),
        "presets": list_presets(),
    }


def about(kind: str, name: str) -> str:
    """Return the first line of what a name stands for."""
    tables: dict[str, dict[str, Any]] = {"tasks": TASKS, "encoders": ENCODERS, "decoders": DECODERS}
    entry = tables.get(kind, {}).get(name)
    return (entry.__doc__ or "").strip().splitlines()[0] if entry is not None and entry.__doc__ else ""
