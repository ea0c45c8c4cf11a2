"""Pushing all runs of a folder to the Hub, with a card that compares them, as one collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from avplatform.base.hub_errors import FAILURES, explain, with_retries
from avplatform.evaluation.compare import FinishedRun, Group, group_runs, read_finished
from avplatform.evaluation.compare_page import spread_cell
from avplatform.evaluation.markdown import markdown_table
from avplatform.evaluation.selection import mean_and_spread
from avplatform.hub.card_data import SYNTHETIC_TAG
from avplatform.hub.push import push_files, push_run
from avplatform.hub_cards.render import metadata_text, render
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.models.paths import expanded
from avplatform.runs.folder import RunFolder
from avplatform.sweeps.scores import SPLIT, shown_figures
from avplatform.tasks.registry import TASKS
from avplatform.version import __version__


@dataclass(frozen=True)
class Member:
    """A run of the collection and its repository."""

    run: FinishedRun
    repo_id: str


def push_collection(
    folder: str | Path,
    name: str,
    *,
    results_only: bool = False,
    private: bool = False,
    token: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> str:
    """Push every finished run of a folder, then a card that compares them, and collect all.

    A run goes to the repository "NAME-RUN"; the card alone is the repository NAME. The collection
    has the last part of NAME as its title. If the push stops, the same call goes on: what the Hub
    has already is not sent again, and the card and the collection come last.

    Args:
        folder: the folder of the runs, such as that of a sweep.
        name: "owner/name".
        results_only: push cards, configs and results, without weights.
        private: new repositories and the collection are private.
        token: a token with write access; default: the one of `hf auth login` or HF_TOKEN.
        say: is told of every repository, and of pauses.

    Returns:
        The URL of the collection.

    Raises:
        UsageError: the name is not "owner/name", or the folder has no finished run.
        DataError: a run cannot be read, or the Hub refuses it or cannot be reached.
    """
    owner, _, title = name.partition("/")
    if not owner or not title or "/" in title:
        raise UsageError(f"'{name}' is not owner/name")
    members, unfinished = _members(expanded(folder), name)
    told: dict[str, Any] = {"private": private, "token": token, "say": say}
    total, places = len(members) + 1, {}
    for number, member in enumerate(members, start=1):
        try:
            pushed = push_run(member.run.folder, member.repo_id, results_only=results_only, **told)
        except DataError as error:
            raise DataError(
                f"{error} ({number - 1} of {total} repositories are there; run the same command "
                "again to go on)"
            ) from None
        places[member.run.folder] = pushed.url
        say(f"[{number}/{total}] {pushed.url}: {'pushed' if pushed.changed else 'unchanged'}")
    for missing in unfinished:
        say(f"not pushed, because it is not finished: {missing}")
    card = collection_card(
        [member.run for member in members],
        name,
        places,
        example="" if results_only else members[0].repo_id,
    )
    message = "Upload the comparison of the runs with avplatform"
    index = push_files({"README.md": card.encode()}, name, "model", message, **told)
    say(f"[{total}/{total}] {index.url}: {'pushed' if index.changed else 'unchanged'}")
    api = HfApi(token=token)

    def collect() -> str:
        collection = api.create_collection(
            title,
            namespace=owner,
            description=f"{counted(len(members), 'run')} of avplatform, and their comparison",
            private=private,
            exists_ok=True,
        )
        for repo_id in (name, *(member.repo_id for member in members)):
            api.add_collection_item(collection.slug, repo_id, "model", exists_ok=True)
        return collection.url

    try:
        return with_retries(collect, say=say)
    except FAILURES as error:
        raise DataError(
            f"all repositories are there, but the Hub did not make the collection {title}: "
            f"{explain(error)}"
        ) from None


def _members(folder: Path, name: str) -> tuple[list[Member], list[str]]:
    """Return the finished runs of a folder with their repositories, and the names of the others."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give the folder of a sweep's runs")
    runs = sorted(file.parent for file in folder.glob("*/config.yaml"))
    finished = [run for run in runs if RunFolder(run).results_file.is_file()]
    if not finished:
        found = f"{counted(len(runs), 'run')}, none of them finished" if runs else "no run"
        raise UsageError(f"{folder} holds {found}; there is nothing to push")
    members = [Member(read_finished(run), f"{name}-{_safe(run.name)}") for run in finished]
    taken: dict[str, Member] = {}
    for member in members:
        if (twin := taken.setdefault(member.repo_id, member)) is not member:
            raise UsageError(
                f"{twin.run.folder.name} and {member.run.folder.name} would both be pushed to "
                f"{member.repo_id}; rename one of the folders"
            )
    return members, [run.name for run in runs if run not in finished]


def _safe(text: str) -> str:
    """Return a name without what the Hub does not allow in names of repositories."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    while "--" in kept or ".." in kept:
        kept = kept.replace("--", "-").replace("..", ".")
    return kept.strip("-.")


def collection_card(
    runs: Sequence[FinishedRun], name: str, places: Mapping[Path, str], *, example: str
) -> str:
    """Return README.md of the repository that compares the runs of a collection.

    It has a table for each task and data: one row per run, or per group of runs that differ only
    in their seed, with mean and standard deviation, and links to the repositories.

    Args:
        runs: the finished runs.
        name: "owner/name" of the repository.
        places: the URL of each run's repository, by the run's folder.
        example: the repository that the example loads; empty: weights were not pushed.
    """
    kinds: dict[tuple[str, str, bool], list[FinishedRun]] = {}
    for run in runs:
        same = (str(run.results["task"]), str(run.results["data"]), bool(run.results["synthetic"]))
        kinds.setdefault(same, []).append(run)
    synthetic = any(same[2] for same in kinds)
    tags = ["avplatform", "audio-visual", *dict.fromkeys(task for task, *_ in kinds)]
    metadata = {
        "library_name": "avplatform",
        "license": "apache-2.0",
        "tags": [*tags, *([SYNTHETIC_TAG] if synthetic else [])],
    }
    return render(
        "collection_card.md.jinja",
        metadata=metadata_text(metadata),
        title=name,
        count=counted(len(runs), "run"),
        synthetic=synthetic,
        tables=[
            {
                "title": TASKS[task].title or task,
                "data": data,
                "synthetic": of_code,
                "text": _table(group_runs(own), places),
            }
            for (task, data, of_code), own in kinds.items()
        ],
        example=example,
        version=__version__,
    )


def _table(groups: Sequence[Group[FinishedRun]], places: Mapping[Path, str]) -> str:
    """Return the Markdown table of the main figures on test."""
    scored = [run for group in groups for run in group.runs if SPLIT in run.results]
    shown = shown_figures(scored[0].results) if scored else []
    rows = []
    for group in groups:
        links = [
            f"[{run.results.get('seed', run.folder.name)}]({places[run.folder]})"
            for run in group.runs
        ]
        selection = (group.runs[0].results.get("selection") or {}).get("split") or "unknown"
        rows.append([group.label, selection, *_cells(group, shown), ", ".join(links)])
    return markdown_table(["run", "epoch picked on", *shown, "seeds"], rows)


def _cells(group: Group[FinishedRun], shown: Sequence[str]) -> list[str]:
    """Return the figures of a group on test, "-" where a run has none."""
    found = [[run.results.get(SPLIT, {}).get(figure) for run in group.runs] for figure in shown]
    return ["-" if None in values else spread_cell(mean_and_spread(values)) for values in found]
