"""Pushing the model of a run, or a dataset, to the Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypedDict, Unpack

import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    parse_eval_result_entries,
)

from avplatform.base.hub_errors import FAILURES, explain
from avplatform.data.importing.report import REPORT_FILE, without_places
from avplatform.data.reading.shards import check_shard
from avplatform.data.store.card import render_dataset_card
from avplatform.data.store.schema import MANIFEST_FILE, Manifest
from avplatform.data.store.writer import arrow_schema
from avplatform.hub.folder import EVAL_RESULTS, OPTIONAL, UPLOADED, model_folder
from avplatform.hub_cards.render import PLACEHOLDER
from avplatform.models.errors import AVError, DataError, UsageError
from avplatform.models.paths import expanded

STALE = re.compile(rf"[\w-]+-\d{{5}}\.parquet|{re.escape(REPORT_FILE)}")
"""Files of a store that was pushed before: a push deletes those that the new store lacks."""


class HubOptions(TypedDict, total=False):
    """Options of a push.

    Args:
        private: the repository must be private; a new one is created as private.
        token: a token with write access; default: the one of `hf auth login` or HF_TOKEN.
        revision: branch to push to, which is created if it does not exist.
        commit_message: default: "Upload model with avplatform" or "Upload data with avplatform".
    """

    private: bool
    token: str | None
    revision: str | None
    commit_message: str | None


def push_run(run: str | Path, repo_id: str, **options: Unpack[HubOptions]) -> str:
    """Push a run's model folder to the Hub in one commit, and return the URL of the repository.

    The model folder holds the config, the weights, the bank if there is one, and the card, whose
    example gets the id of the repository, and possibly valid `.eval_results/*.yaml`. avplatform
    does not write the latter, since neither LLP nor AVE is registered as a benchmark on the Hub.

    Args:
        run: run folder, model folder or hub id.
        repo_id: "owner/name"; it is created if it does not exist.
        options: see `HubOptions`.

    Raises:
        DataError: the model is not complete, or the Hub refuses it or cannot be reached.
        UsageError: `private` is set, but the repository exists and is public.
    """
    files = _model_files(model_folder(run), repo_id)
    return _push(files, repo_id, "model", "Upload model with avplatform", **options)


def push_data(folder: str | Path, repo_id: str, **options: Unpack[HubOptions]) -> str:
    """Push a store to a dataset repository on the Hub in one commit, and return the URL.

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
    return _push(files, repo_id, "dataset", "Upload data with avplatform", stale=STALE, **options)


def _push(
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
) -> str:
    """Commit files to a "model" or "dataset" repository, which is created if it does not exist.

    The same commit deletes other files of the repository whose name matches `stale`.
    """
    api = HfApi(token=token)
    try:
        url = api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id, repo_type=kind).private:
            raise UsageError(
                f"{repo_id} exists and is public, so --private would have no effect; leave it out, "
                "or give another name"
            )
        # The branch of a pull request exists already.
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, repo_type=kind, revision=revision) if stale else []
        old = [name for name in there if stale and stale.fullmatch(name) and name not in files]
        api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(path_in_repo=n, path_or_fileobj=f) for n, f in files.items()),
                *(CommitOperationDelete(path_in_repo=name) for name in old),
            ],
            repo_type=kind,
            commit_message=commit_message or message,
            revision=revision,
        )
    except AVError:
        raise
    except FAILURES as error:
        raise DataError(f"the Hub did not take {repo_id}: {explain(error)}") from None
    return str(url)


def _card(folder: Path, repo_id: str) -> bytes:
    """Return the card of a folder, whose example reads from the repository."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    return text.replace(PLACEHOLDER, repo_id).encode()


def _model_files(folder: Path, repo_id: str) -> dict[str, bytes | Path]:
    """Return the files to push, after checking that the model is complete."""
    for name in UPLOADED:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} has no {name}, so it is not pushed; give the folder of a finished run"
            )
    files: dict[str, bytes | Path] = {name: folder / name for name in UPLOADED}
    files |= {name: folder / name for name in OPTIONAL if (folder / name).is_file()}
    files["README.md"] = _card(folder, repo_id)
    for file in sorted(folder.glob(EVAL_RESULTS)):
        try:
            parse_eval_result_entries(yaml.safe_load(file.read_text(encoding="utf-8")))
        except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{file} does not hold valid evaluation results ({reason}); correct or delete it"
            ) from None
        files[str(file.relative_to(folder))] = file
    return files
