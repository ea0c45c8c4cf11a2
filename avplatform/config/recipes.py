"""Published training recipes, as the encoders and decoders declare them, with all options filled in."""

from __future__ import annotations

from dataclasses import dataclass

from avplatform.config.optim import OptimConfig, ScheduleConfig
from avplatform.models.contracts import Options
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS


@dataclass(kw_only=True, frozen=True)
class Recipe:
    """How a paper trained: optimiser, schedule, epochs, batch size (clips a step), seed, and how it chose its epoch."""

    optim: OptimConfig
    schedule: ScheduleConfig
    epochs: int
    batch_size: int
    seed: int = 1
    select_on: str = "validation"
    ties: str = "latest"
    shuffle: bool = True
    drop_last: bool = False

    @classmethod
    def of(cls, options: Options) -> Recipe:
        """Return the recipe of a part's options."""
        optim, schedule = (
            OptimConfig(**options.get("optim", {})),
            ScheduleConfig(**options.get("schedule", {})),
        )
        return cls(**{**options, "optim": optim, "schedule": schedule})


RECIPES: dict[str, Recipe] = {
    name: Recipe.of(options)
    for recipes in [part.recipes for part in ENCODERS.values()]
    + [part.recipes for part in DECODERS.values()]
    for name, options in recipes.items()
}
"""Recipes by name; learning rates, schedules and batch sizes as in the authors' scripts."""
