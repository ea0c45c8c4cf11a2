"""What a model's card says of the features that it reads and of the data that it was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from avplatform.data.adapters.contracts import DatasetAdapter
from avplatform.data.adapters.registry import find_adapter
from avplatform.features.recipe import RECIPES, FeatureRecipe
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, counted

UNKNOWN = "not recorded"
SYNTHETIC_TAG = "synthetic-data"
"""The tag in the card of a model that was trained on synthetic features."""


def features_of_card(
    task: str,
    config: Mapping[str, Any],
    inputs: list[tuple[str, list[int]]],
    *,
    synthetic: bool,
) -> dict[str, Any]:
    """Return the inputs of a model with their origin, and how such features are made.

    Args:
        task: name of the task.
        config: the model's config as a dictionary.
        inputs: name and shape of each input.
        synthetic: whether the features of the training were drawn by code.

    Returns:
        "rows" of name, shape and origin; "how", sentences; "options", which the commands for one's
        own videos need: [extract, predict], or empty where there is no such command.
    """
    recipe, adapter = _recorded(config), _dataset(task, config)
    if recipe is not None:
        rows, options = _rows(inputs, vars(recipe)), [_flags(recipe), ""]
        how = (
            "The model's config names these extractors and the checksums of their weights, and "
            "`avplatform predict` uses the same ones."
        )
    elif synthetic:
        rows, options = [(name, shape, "drawn by code") for name, shape in inputs], []
        title = adapter.title if adapter is not None else "real ones"
        how = f"They only have the shapes of {title}'s, so no extractor makes them from a video."
    elif adapter is not None and adapter.recipe:
        rows = _rows(inputs, adapter.recipe)
        options = [f" --backbones {adapter.name}", f" --recipe {adapter.name}"]
        how = (
            f"These are the extractors of the features that {adapter.title}'s authors published, "
            "if the training read those; the data do not record it. avplatform makes features of "
            "this kind, which are not the same numbers: score the model on them before you trust "
            "it."
        )
    else:
        rows, options = _rows(inputs, {}), []
        how = "The data do not record how they were made; ask the author of this model."
    return {"rows": rows, "how": how, "options": options}


def data_of_card(results: Mapping[str, Any]) -> list[str]:
    """Return sentences on the training data: what they are, how many, where, and their terms."""
    about = results.get("training_data") or {}
    name, dataset, hub = f"`{results['data']}`", about.get("dataset"), about.get("hub")
    clips = ", ".join(f"{count:,} {split}" for split, count in (about.get("clips") or {}).items())
    sentences = [f"{name}{' (classes of ' + dataset + ')' if dataset else ''}: {clips} clips."]
    if not clips:
        sentences = [f"{name}."]
    if hub:
        sentences.append(f"Read from the dataset `{hub['repo']}` at commit `{hub['revision']}`.")
    if results["synthetic"]:
        labels = f" Their labels: {about['labels']}." if about.get("labels") else ""
        sentences.append(f"The features were drawn by avplatform's code (Apache-2.0).{labels}")
    owners = f"the authors of {dataset}" if dataset else "whoever collected them"
    if not results["synthetic"] or "annotations" in (about.get("labels") or ""):
        what = "labels" if results["synthetic"] else "labels and features"
        sentences.append(f"The {what} belong to {owners}, whose terms hold for them.")
    sentences.append("The licence of this repository covers the weights alone.")
    return sentences


def clips_and_videos(confidence: Mapping[str, Any]) -> str:
    """Return how the intervals of a card's figures were made."""
    return (
        f"Intervals: {100 * confidence['level']:.0f} %, over {confidence['resamples']:,} resamples "
        f"of the {counted(confidence['videos'], 'test video')}. They cover the choice of videos, "
        "not of the seed."
    )


def _recorded(config: Mapping[str, Any]) -> FeatureRecipe | None:
    """Return the recipe in a model's config, or None."""
    extractors = config["features"].get("extractors")
    try:
        return FeatureRecipe.from_dict(extractors) if extractors else None
    except DataError:
        return None


def _dataset(task: str, config: Mapping[str, Any]) -> DatasetAdapter | None:
    """Return the task's dataset if its features have the model's shapes."""
    names = [f.name for f in dataclasses.fields(FeatureSpec) if f.compare]
    own, adapter = config["features"], find_adapter(task)
    if adapter is None:
        return None
    wanted = dataclasses.asdict(adapter.features)
    same = all(_plain(own.get(name)) == _plain(wanted[name]) for name in names)
    return adapter if same else None


def _plain(size: Any) -> Any:
    return list(size) if isinstance(size, (list, tuple)) else size


def _rows(
    inputs: list[tuple[str, list[int]]], made_by: Mapping[str, Any]
) -> list[tuple[str, list[int], str]]:
    origins = {name: f"`{made_by[name]}`" if made_by.get(name) else UNKNOWN for name, _ in inputs}
    return [(name, shape, origins[name]) for name, shape in inputs]


def _flags(recipe: FeatureRecipe) -> str:
    """Return the options of `avplatform extract` for a recipe."""
    if RECIPES.get(recipe.name) == recipe:
        return f" --backbones {recipe.name}"
    motion = f" --motion {recipe.motion or 'none'}"
    return f" --audio {recipe.audio} --visual {recipe.visual}{motion}"
