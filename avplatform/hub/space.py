"""Pushing the demo of a model to the Hub as a Space."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Unpack

from huggingface_hub import SpaceCardData

from avplatform.hub.folder import model_folder
from avplatform.hub.push import HubOptions, Pushed, model_files, push_files
from avplatform.hub_cards.render import metadata_text, render
from avplatform.models.errors import UsageError
from avplatform.models.paths import expanded
from avplatform.training_free.model import TRAINING_FREE
from avplatform.version import __version__

GRADIO = "6.31.0"
"""The version of gradio that a Space installs: the one with which the tests were run."""
EXTRAS = "demo,media,text"
STALE = re.compile(r"models/.+")
"""Files of a model that was pushed before: a push deletes those that are not of this model."""


def push_space(
    model: str | Path,
    repo_id: str,
    *,
    requirement: str | None = None,
    **options: Unpack[HubOptions],
) -> Pushed:
    """Push a Space that serves the demo of a model, in one commit.

    A model on this machine is put into the Space; one on the Hub is only named, so a private one
    needs a token among the Space's secrets (HF_TOKEN).

    Args:
        model: run folder, model folder, hub id or "training-free".
        repo_id: "owner/name" of the Space; it is created if it does not exist.
        requirement: what pip installs avplatform from; default: this version, by its name.
        options: see `HubOptions`.

    Raises:
        DataError: the model is not complete, or the Hub refuses the Space or cannot be reached.
        UsageError: a revision is given: a Space runs what is on its main branch.
    """
    if options.get("revision") is not None:
        raise UsageError("a Space runs what is on its main branch; leave out the revision")
    files: dict[str, bytes | Path] = {}
    name, own = str(model), name_of_folder(model)
    if own:
        name = f"models/{own}"
        weights = model_files(model_folder(model), repo_id)
        files |= {f"{name}/{file}": content for file, content in weights.items()}
    files |= space_files(name, requirement, own=bool(own))
    message = "Upload the demo with avplatform"
    return push_files(files, repo_id, "space", message, stale=STALE, **options)


def name_of_folder(model: str | Path) -> str:
    """Return a plain name for a model on this machine, or "" for one that lies elsewhere.

    Examples:
        >>> name_of_folder("owner/name")
        ''
    """
    folder = expanded(model)
    if not folder.is_dir():
        return ""
    folder = folder.resolve()
    run = folder.parent if folder.name == "model" else folder
    return re.sub(r"[^\w.-]+", "-", run.name).strip("-.") or "model"


def space_files(
    model: str, requirement: str | None = None, *, own: bool = False
) -> dict[str, bytes | Path]:
    """Return app.py, requirements.txt and the card of a Space.

    Args:
        model: the model, as `avplatform demo` takes it.
        requirement: see `push_space`.
        own: whether the weights are in the Space.
    """
    named = [] if own or model == TRAINING_FREE else [model]
    metadata = SpaceCardData(
        title="What is heard, what is seen, and when",
        emoji="\N{SPEAKER WITH THREE SOUND WAVES}",
        colorFrom="blue",
        colorTo="green",
        sdk="gradio",
        sdk_version=GRADIO,
        python_version="3.11",
        app_file="app.py",
        license="apache-2.0",
        models=named or None,
        tags=["avplatform", "audio-visual"],
    )
    values = {
        "metadata": metadata_text(metadata.to_dict()),
        "models": [model],
        "requirement": requirement or f"avplatform[{EXTRAS}]=={__version__}",
        "version": __version__,
        "own": own,
    }
    names = ("README.md", "app.py", "requirements.txt")
    return {name: render(f"space/{name}.jinja", **values).encode() for name in names}
