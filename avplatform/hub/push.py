"""Push a run's model or a dataset to the Hub; get a model's folder from a run, a folder or the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, Unpack

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, parse_eval_result_entries

from avplatform.base.hub_errors import FAILURES, explain
from avplatform.data.importing.report import REPORT_FILE, without_places
from avplatform.data.reading.shards import check_shard
from avplatform.data.store.card import card_of_spec, render_dataset_card
from avplatform.data.store.schema import MANIFEST_FILE, Manifest
from avplatform.data.store.writer import arrow_schema
from avplatform.hub.cards import render_model_card
from avplatform.hub.folder import EVAL_RESULTS, UPLOADED, model_folder
from avplatform.hub_cards.render import PLACEHOLDER
from avplatform.models.errors import AVError, DataError, UsageError

__all__ = [
    "HubOptions",
    "card_of_spec",
    "model_folder",
    "push_data",
    "push_run",
    "render_dataset_card",
    "render_model_card",
]


class HubOptions(TypedDict, total=False):
    """How to push.

    Args:
        private: the repository must be private; a new one is made so.
        token: a token that may write; default: the one of `hf auth login` or HF_TOKEN.
        revision: branch to push to; made if it does not exist.
        commit_message: default "Upload model with avplatform", or "Upload data with avplatform".
    """

    private: bool
    token: str | None
    revision: str | None
    commit_message: str | None


def push_run(run: str | Path, repo_id: str, **options: Unpack[HubOptions]) -> str:
    """Push a run's model folder to the Hub, in one commit; return the repository's address.

    What is pushed is the model folder: config, weights, card (with the repository's id in its example) and, where there
    are some, valid `.eval_results/*.yaml`. avplatform writes none of these itself, since neither LLP nor AVE is
    registered as a benchmark on the Hub.

    Args:
        run: run folder, model folder or hub id.
        repo_id: "owner/name"; made if it does not exist.
        options: see `HubOptions`.

    Raises:
        DataError: the folder is no whole model, or the Hub refuses or cannot be reached.
        UsageError: `private`, but the repository exists and is public.
    """
    return _push(
        _operations(model_folder(run), repo_id),
        repo_id,
        "model",
        "Upload model with avplatform",
        **options,
    )


def push_data(folder: str | Path, repo_id: str, **options: Unpack[HubOptions]) -> str:
    """Push a store to a dataset repository on the Hub, in one commit; return the repository's address.

    What is pushed is the manifest, the shards that it names (after their checksums were compared), the card and the report of
    the import without this machine's paths; nothing else that lies in the folder, mapped arrays in particular. What is there
    already in the same bits is not sent again.

    Args:
        folder: the store.
        repo_id: "owner/name"; made if it does not exist.
        options: see `HubOptions`.

    Raises:
        DataError: the folder is no whole store, or the Hub refuses or cannot be reached.
        UsageError: `private`, but the repository exists and is public.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    schema = arrow_schema(manifest.spec, manifest.dtype)
    contents: dict[str, bytes | Path] = {MANIFEST_FILE: folder / MANIFEST_FILE}
    contents["README.md"] = render_dataset_card(manifest, repo_id).encode()
    if (folder / "README.md").is_file():
        contents["README.md"] = (
            (folder / "README.md")
            .read_text(encoding="utf-8")
            .replace(PLACEHOLDER, repo_id)
            .encode()
        )
    if (folder / REPORT_FILE).is_file():
        contents[REPORT_FILE] = without_places(
            (folder / REPORT_FILE).read_text(encoding="utf-8")
        ).encode()
    for info in manifest.splits.values():
        contents |= {
            shard.file: check_shard(folder, shard, schema, contents=True) for shard in info.shards
        }
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
        for name, content in contents.items()
    ]
    return _push(operations, repo_id, "dataset", "Upload data with avplatform", **options)


def _push(
    operations: list[CommitOperationAdd],
    repo_id: str,
    kind: str,
    message: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Commit files to a repository of a kind ("model" or "dataset"), which is made if need be."""
    api = HfApi(token=token)
    try:
        url = api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id, repo_type=kind).private:
            raise UsageError(
                f"{repo_id} exists and is public, so --private would do nothing; leave it out or take another name"
            )
        if revision is not None and not revision.startswith(
            "refs/"
        ):  # a pull request's branch is there already
            api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
        api.create_commit(
            repo_id,
            operations,
            repo_type=kind,
            commit_message=commit_message or message,
            revision=revision,
        )
    except AVError:
        raise
    except FAILURES as error:
        raise DataError(f"the Hub did not take {repo_id}: {explain(error)}") from None
    return str(url)


def _operations(folder: Path, repo_id: str) -> list[CommitOperationAdd]:
    """Return what is pushed, after checking that it is whole."""
    for name in UPLOADED:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} has no {name}, so it is not pushed; give the folder of a finished run"
            )
    card = (folder / "README.md").read_text(encoding="utf-8").replace(PLACEHOLDER, repo_id)
    contents: dict[str, bytes | Path] = {name: folder / name for name in UPLOADED}
    contents["README.md"] = card.encode()
    for file in sorted(folder.glob(EVAL_RESULTS)):
        try:
            parse_eval_result_entries(yaml.safe_load(file.read_text(encoding="utf-8")))
        except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{file} holds no valid evaluation results ({reason}); correct or delete it"
            ) from None
        contents[str(file.relative_to(folder))] = file
    return [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
        for name, content in contents.items()
    ]
