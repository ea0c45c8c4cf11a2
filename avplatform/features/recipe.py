"""Recipes: which backbones make a set of features, and from which frames.

A recipe is one JSON value, which is stored with the features.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from avplatform.data.adapters.registry import DATASETS
from avplatform.models.checks import at_least
from avplatform.models.errors import DataError, UsageError, nearest, unknown_name

RECIPE_VERSION = 1


@dataclass(kw_only=True, frozen=True)
class FeatureRecipe:
    """The backbones of the streams, and the frames of a segment that they read.

    `audio` is vggish, vggish-pca, soundnet8 or clap[:NAME]; `visual` is timm:NAME (any model of
    timm), vgg19-pool5 (maps) or clip[:NAME]; `motion` is r2plus1d_18 or None. The video is
    resampled to `fps` frames per second. Of these, `frames_per_segment` per segment are taken,
    evenly spaced over the clip, and the features of a segment's frames are averaged.

    Raises:
        UsageError: an unknown backbone, or a number below 1.
    """

    name: str
    audio: str
    visual: str
    motion: str | None = None
    fps: int = 8
    frames_per_segment: int = 8

    def __post_init__(self) -> None:
        at_least(self, ("fps", "frames_per_segment"), 1)
        for stream in ("audio", "visual", "motion"):
            value = getattr(self, stream)
            if value is None and stream == "motion":
                continue
            kind, _, inner = str(value).partition(":")
            known = BACKBONES[stream]
            if kind not in known or (kind == "timm" and not inner):
                shown = [f"{name}:NAME" if named else name for name, named in known.items()]
                raise UsageError(
                    f"{stream}: no backbone '{value}'{nearest(kind, known)}; choose from "
                    f"{', '.join(shown)}"
                )
            if inner and not known[kind]:
                raise UsageError(f"{stream}: '{kind}' has no variants, so not '{value}'")

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values, with a version."""
        return {"version": RECIPE_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FeatureRecipe:
        """Return the recipe in a value of `to_dict`, or in the `extractors` of a store or a model.

        Raises:
            DataError: there is no recipe, or it has a newer version.
        """
        data = dict(data.get("recipe", data))
        version = data.pop("version", None)
        if not isinstance(version, int):
            raise DataError("this does not say how features were extracted; name a recipe instead")
        if version > RECIPE_VERSION:
            raise DataError(
                f"the recipe has version {version}; this avplatform reads up to {RECIPE_VERSION}: "
                "upgrade it"
            )
        try:
            return cls(**data)
        except (TypeError, UsageError) as error:
            raise DataError(f"the recipe cannot be read: {error}") from None


BACKBONES: dict[str, dict[str, bool]] = {
    "audio": {"vggish": False, "vggish-pca": False, "soundnet8": False, "clap": True},
    "visual": {"timm": True, "vgg19-pool5": False, "clip": True},
    "motion": {"r2plus1d_18": False},
}
"""Names of backbones by stream, and whether the name of a model may follow after a colon."""

RECIPES: dict[str, FeatureRecipe] = {
    recipe.name: recipe
    for recipe in (
        *(
            FeatureRecipe(name=adapter.name, **adapter.recipe)
            for adapter in DATASETS.values()
            if adapter.recipe
        ),
        FeatureRecipe(
            name="lite",
            audio="soundnet8",
            visual="timm:tf_efficientnet_lite0",
            frames_per_segment=4,
        ),
        FeatureRecipe(name="clip-clap", audio="clap", visual="clip", frames_per_segment=1),
    )
}
"""Recipes by name: the official datasets', a light one without the Hub, and VALOR's teachers."""


UNAVAILABLE: dict[str, str] = {
    "imagebind": (
        "ImageBind's authors publish no package, the copies on PyPI are unofficial and state "
        "another licence than its CC BY-NC-SA 4.0, and its weights are a pickle; embed videos and "
        "label texts with the authors' repository, and import the vectors as features, or use "
        "clip-clap"
    ),
}
"""Recipes that papers use and that are not made here, with the reason and what to do."""


def get_recipe(recipe: str | dict[str, Any] | FeatureRecipe) -> FeatureRecipe:
    """Return a recipe by its name or from its JSON value.

    Raises:
        UsageError: an unknown name, or that of a recipe which is not available; says why.
        DataError: the JSON value is not a recipe.
    """
    if isinstance(recipe, FeatureRecipe):
        return recipe
    if isinstance(recipe, dict):
        return FeatureRecipe.from_dict(recipe)
    if recipe in UNAVAILABLE:
        raise UsageError(f"the recipe {recipe} is not available: {UNAVAILABLE[recipe]}")
    if recipe not in RECIPES:
        raise unknown_name("recipe", recipe, RECIPES)
    return RECIPES[recipe]
