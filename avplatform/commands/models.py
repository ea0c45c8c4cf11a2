"""`avplatform models ls`: the models in a folder, or those of the Hub that are on this machine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from avplatform.commands.flags import parse_flags
from avplatform.commands.runs import Row, date_of, folders_with, headline, only_ls, show, shown
from avplatform.models.av_model import CONFIG_FILE, WEIGHTS_FILE
from avplatform.models.errors import AVError
from avplatform.models.paths import expanded
from avplatform.runs.folder import results_beside


@dataclass(kw_only=True)
class ModelsOptions:
    """List models with their cell, figure, date and size; the newest first."""

    folder: Annotated[str | None, tyro.conf.Positional] = None
    """a folder that is searched, such as runs; default: what was fetched from the Hub"""
    json: str | None = None
    """write the list to this file; without a name: print it as JSON, and nothing else"""


def run(args: list[str], prog: str) -> int:
    """List models as the flags say."""
    options = parse_flags(ModelsOptions, *only_ls(args, prog))
    if options.folder is None:
        rows, title = list_fetched(), "models fetched from the Hub"
    else:
        rows, title = list_folder(options.folder), f"models in {options.folder}"
    show(rows, options.json, title, lambda row: shown(row, state=row["revision"] or "here"))
    return 0


def list_folder(folder: str | Path) -> list[Row]:
    """Return what there is to say of every model in and under a folder.

    Raises:
        DataError: there is no such folder.
    """
    base = expanded(folder)
    places = [*folders_with(folder, CONFIG_FILE, WEIGHTS_FILE)]
    found = [
        row | {"name": str(place.relative_to(base)) if place != base else place.name}
        for place in places
        if (row := _describe(place)) is not None
    ]
    return _newest_first(found)


def list_fetched() -> list[Row]:
    """Return what there is to say of every model of this kind in the cache of the Hub."""
    found = []
    for name, revision, place in _snapshots():
        row = _describe(place)
        if row is not None:
            found.append(row | {"name": name, "revision": revision[:8]})
    return _newest_first(found)


def _newest_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["date"], row["name"]), reverse=True)


def _snapshots() -> Iterator[tuple[str, str, Path]]:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    for repository in repositories:
        if repository.repo_type == "model":
            for revision in repository.revisions:
                yield repository.repo_id, revision.commit_hash, revision.snapshot_path


def _describe(place: Path) -> Row | None:
    """Return a row of a model's folder; None if it is another library's model."""
    files = [place / CONFIG_FILE, place / WEIGHTS_FILE]
    try:
        config = json.loads(files[0].read_text(encoding="utf-8"))
        parts = [config["task"], config["encoder"]["_type"], config["decoder"]["_type"]]
        parts.append(config["task_config"]["supervision"])
        date = files[1].stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError):
        return None
    results: dict[str, Any] = {}
    with contextlib.suppress(AVError):  # a damaged results.json says nothing
        results = results_beside(place)
    return {
        "name": place.name,
        "revision": None,
        "folder": str(place),
        "task": parts[0],
        "cell": "-".join(map(str, parts)),
        **headline(results, parts[0]),
        "date": date_of(date),
        "size": sum(path.stat().st_size for path in place.rglob("*") if path.is_file()),
    }
