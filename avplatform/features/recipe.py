"""What a set of features is made of: its backbones and how moments are chosen; one JSON value, stored with the features."""

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
    """The backbones of the streams, and which frames of a segment they see.

    `audio` is vggish, vggish-pca, soundnet8 or clap[:NAME]; `visual` is timm:NAME (any model of timm), vgg19-pool5 (maps) or
    clip[:NAME]; `motion` is r2plus1d_18 or None. The video is brought to `fps` frames a second, and of these
    `frames_per_segment` for each segment are taken, evenly over the clip; their features are averaged.

    Raises:
        UsageError: an unknown backbone, or numbers that nothing can be made of.
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
                    f"{stream}: no backbone '{value}'{nearest(kind, known)}; choose from {', '.join(shown)}"
                )
            if inner and not known[kind]:
                raise UsageError(f"{stream}: '{kind}' has no variants, so not '{value}'")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with a version."""
        return {"version": RECIPE_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FeatureRecipe:
        """Rebuild a recipe from what `to_dict` gave, or from the `extractors` of a store or a model.

        Raises:
            DataError: no recipe, or one of a newer version.
        """
        data = dict(data.get("recipe", data))
        version = data.pop("version", None)
        if not isinstance(version, int):
            raise DataError(
                "this says nothing of how features were extracted; name a recipe instead"
            )
        if version > RECIPE_VERSION:
            raise DataError(
                f"the recipe has version {version}; this avplatform reads up to {RECIPE_VERSION}: upgrade it"
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
"""Names of backbones by stream, and whether a name may follow after a colon."""

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
"""Recipes by name: the features of the official data sets, a light one without a hub, and VALOR's teachers."""


def get_recipe(recipe: str | dict[str, Any] | FeatureRecipe) -> FeatureRecipe:
    """Return a recipe by its name or from its JSON value.

    Raises:
        UsageError: an unknown name.
        DataError: JSON that is no recipe.
    """
    if isinstance(recipe, FeatureRecipe):
        return recipe
    if isinstance(recipe, dict):
        return FeatureRecipe.from_dict(recipe)
    if recipe not in RECIPES:
        raise unknown_name("recipe", recipe, RECIPES)
    return RECIPES[recipe]
