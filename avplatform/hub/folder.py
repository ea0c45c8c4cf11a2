"""Finding the folder of a model by a run folder, a model folder or a hub id."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, snapshot_download

from avplatform.base.hub_errors import FAILURES, explain
from avplatform.models.av_model import BANK_FILE, model_of_run
from avplatform.models.errors import DataError, UsageError
from avplatform.models.paths import expanded, may_be_hub_id, nearest_path

UPLOADED = ("config.json", "model.safetensors", "README.md")
OPTIONAL = (BANK_FILE,)
PLOTS = "plots"
"""The folder of the pictures that the card shows."""
EVAL_RESULTS = ".eval_results/*.yaml"


def dataset_of_card(name: str) -> str | None:
    """Return the dataset on the Hub that the card of a model on the Hub names first, or None.

    Raises:
        DataError: there is no such model, or it cannot be fetched.
    """
    text = (model_folder(name) / "README.md").read_text(encoding="utf-8")
    found = ModelCard(text, ignore_metadata_errors=True).data.get("datasets")
    return next(iter([found] if isinstance(found, str) else found or []), None)


def model_folder(path: str | Path, *, revision: str | None = None) -> Path:
    """Return the model folder of a run folder, a model folder or a hub id (which is downloaded).

    Args:
        path: the folder or the hub id.
        revision: branch, tag or commit of a repository on the Hub.

    Raises:
        DataError: there is none; the message says where it was looked for.
        UsageError: a revision is given for a folder.
    """
    folder = expanded(path)
    if folder.is_dir():
        if revision is not None:
            raise UsageError(f"{path} is a folder, which has no revisions; leave revision out")
        return model_of_run(folder)
    name = str(path)
    if not may_be_hub_id(name):
        raise DataError(
            f"no model folder {name}{nearest_path(name)}; give a run folder, a model folder, or a "
            "hub id such as owner/name (whose owner is not the name of a folder here)"
        )
    try:
        patterns = [*UPLOADED, *OPTIONAL, f"{PLOTS}/*.png", EVAL_RESULTS]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except FAILURES as error:
        raise DataError(
            f"no model folder {name}, and it cannot be fetched from the Hub: {explain(error)}"
        ) from None
