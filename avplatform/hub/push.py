"""Pushing the model of a run, or a dataset, to the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard

from avplatform.base.hub_errors import FAILURES, explain, with_retries
from avplatform.data.importing.report import REPORT_FILE, without_places
from avplatform.data.reading.shards import check_shard
from avplatform.data.store.card import render_dataset_card
from avplatform.data.store.schema import MANIFEST_FILE, Manifest
from avplatform.data.store.writer import arrow_schema
from avplatform.hub.eval_results import EVAL_FILE, check_eval_results, eval_text
from avplatform.hub.folder import EVAL_RESULTS, OPTIONAL, PLOTS, UPLOADED, model_folder
from avplatform.hub_cards.render import PLACEHOLDER
from avplatform.models.errors import AVError, DataError, UsageError, one_line
from avplatform.models.paths import expanded
from avplatform.runs.folder import results_beside

RESULTS_FILE = "results.json"
STALE = re.compile(rf"[\w-]+-\d{{5}}\.parquet|{re.escape(REPORT_FILE)}")
"""Files of a store that was pushed before: a push deletes those that the new store lacks."""


class HubOptions(TypedDict, total=False):
    """Options of a push.

    Args:
        private: the repository must be private; a new one is created as private.
        token: a token with write access; default: the one of `hf auth login` or HF_TOKEN.
        revision: branch to push to, which is created if it does not exist.
        commit_message: default: "Upload model with avplatform" or "Upload data with avplatform".
        say: is told of pauses, where the Hub limits the rate or the connection is lost.
    """

    private: bool
    token: str | None
    revision: str | None
    commit_message: str | None
    say: Callable[[str], None] | None


@dataclass(frozen=True)
class Pushed:
    """What a push did: the URL of the repository, and whether it changed a file there."""

    url: str
    changed: bool

    @property
    def text(self) -> str:
        """What the push did, for a reader."""
        if self.changed:
            return f"pushed to {self.url}"
        return f"{self.url} has all of it already; nothing was pushed"


def push_run(
    run: str | Path, repo_id: str, *, results_only: bool = False, **options: Unpack[HubOptions]
) -> Pushed:
    """Push a run's model folder to the Hub in one commit.

    Files that the Hub has already are not sent again; if it has all of them, there is no commit.
    After a rate limit, an error of the Hub or a lost connection the push is tried again a few
    times. A push that failed leaves the repository as it was.

    The model folder holds the config, the weights, the bank if there is one, the card, whose
    example gets the id of the repository, and its pictures. If the data of the run have a
    repository on the Hub, the test figures are also written to `.eval_results/avplatform.yaml`;
    files that the user put there go along. Card and results are checked by the client's classes.

    Args:
        run: run folder, model folder or hub id.
        repo_id: "owner/name"; it is created if it does not exist.
        results_only: push the card, the config and the results, without the weights.
        options: see `HubOptions`.

    Raises:
        DataError: the model is not complete, or the Hub refuses it or cannot be reached.
        UsageError: `private` is set, but the repository exists and is public.
    """
    folder = model_folder(run)
    files = model_files(folder, repo_id)
    if text := eval_text(results_beside(folder)):
        files[EVAL_FILE] = text.encode()
    if results_only:
        files = {name: file for name, file in files.items() if not name.endswith(".safetensors")}
        files[RESULTS_FILE] = _results(run)
    return push_files(files, repo_id, "model", "Upload model with avplatform", **options)


def push_data(folder: str | Path, repo_id: str, **options: Unpack[HubOptions]) -> Pushed:
    """Push a store to a dataset repository on the Hub in one commit.

    The commit holds the manifest, its shards (after their checksums were compared), the card, and
    the report of the import without the paths of this machine. Other files in the folder, such as
    mapped arrays, are not pushed. Files that the Hub has already are not sent again. Shards of an
    earlier push that the store lacks are deleted, else `datasets` would read them too.

    Args:
        folder: the store.
        repo_id: "owner/name"; it is created if it does not exist.
        options: see `HubOptions`.

    Raises:
        DataError: the store is not complete, or the Hub refuses it or cannot be reached.
        UsageError: `private` is set, but the repository exists and is public.
    """
    folder = expanded(folder)
    manifest = Manifest.read(folder)
    schema = arrow_schema(manifest.spec, manifest.dtype)
    files: dict[str, bytes | Path] = {MANIFEST_FILE: folder / MANIFEST_FILE}
    if (folder / "README.md").is_file():
        files["README.md"] = _card(folder, repo_id)
    else:
        files["README.md"] = render_dataset_card(manifest, repo_id).encode()
    if (folder / REPORT_FILE).is_file():
        report = (folder / REPORT_FILE).read_text(encoding="utf-8")
        files[REPORT_FILE] = without_places(report).encode()
    for shard in (shard for info in manifest.splits.values() for shard in info.shards):
        files[shard.file] = check_shard(folder, shard, schema, contents=True)
    message = "Upload data with avplatform"
    return push_files(files, repo_id, "dataset", message, stale=STALE, **options)


def push_files(
    files: dict[str, bytes | Path],
    repo_id: str,
    kind: str,
    message: str,
    *,
    stale: re.Pattern[str] | None = None,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Pushed:
    """Commit files to a "model", "dataset" or "space", which is created if it does not exist.

    The same commit deletes other files of the repository whose name matches `stale`.
    """
    api = HfApi(token=token)

    def attempt() -> Pushed:
        sdk = "gradio" if kind == "space" else None
        url = api.create_repo(
            repo_id, repo_type=kind, private=private, exist_ok=True, space_sdk=sdk
        )
        known = api.repo_info(repo_id, repo_type=kind)
        if private and not known.private:
            raise UsageError(
                f"{repo_id} exists and is public, so --private would have no effect; leave it out, "
                "or give another name"
            )
        # The branch of a pull request exists already.
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, repo_type=kind, revision=revision) if stale else []
        old = [name for name in there if stale and stale.fullmatch(name) and name not in files]
        if revision is not None:
            known = api.repo_info(repo_id, repo_type=kind, revision=revision)
        commit = api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(path_in_repo=n, path_or_fileobj=f) for n, f in files.items()),
                *(CommitOperationDelete(path_in_repo=name) for name in old),
            ],
            repo_type=kind,
            commit_message=commit_message or message,
            revision=revision,
        )
        return Pushed(str(url), commit.oid != known.sha)

    try:
        return with_retries(attempt, say=say)
    except AVError:
        raise
    except FAILURES as error:
        raise DataError(f"the Hub did not take {repo_id}: {explain(error)}") from None


def _results(run: str | Path) -> bytes:
    """Return the results of a run, without its command and its machine."""
    results: dict[str, Any] = results_beside(run)
    if not results:
        raise DataError(f"{run} has no results.json; --results-only is for a run that was scored")
    results.pop("environment", None)
    return json.dumps(results, indent=2, ensure_ascii=False).encode()


def _card(folder: Path, repo_id: str) -> bytes:
    """Return the card of a folder, whose example reads from the repository."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    return text.replace(PLACEHOLDER, repo_id).encode()


def model_files(folder: Path, repo_id: str) -> dict[str, bytes | Path]:
    """Return the files to push, after checking that the model is complete."""
    for name in UPLOADED:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} has no {name}, so it is not pushed; give the folder of a finished run"
            )
    files: dict[str, bytes | Path] = {name: folder / name for name in UPLOADED}
    files |= {name: folder / name for name in OPTIONAL if (folder / name).is_file()}
    files["README.md"] = card = _card(folder, repo_id)
    _check_card(card, folder / "README.md")
    for file in sorted(folder.glob(EVAL_RESULTS)):
        check_eval_results(file.read_text(encoding="utf-8"), file)
        files[file.relative_to(folder).as_posix()] = file
    files |= {f"{PLOTS}/{file.name}": file for file in sorted((folder / PLOTS).glob("*.png"))}
    return files


def _check_card(card: bytes, file: Path) -> None:
    """Raise DataError unless the Hub's client reads the metadata of a card, and its model index."""
    try:
        ModelCard(card.decode())
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        reason = one_line(error)
        raise DataError(
            f"the metadata of {file} are not valid ({reason}); correct the lines between the first "
            "two ---"
        ) from None
