"""Published training recipes, as encoders and decoders declare them, with all options filled in."""

from __future__ import annotations

from dataclasses import dataclass

from avplatform.config.optim import OptimConfig, ScheduleConfig
from avplatform.models.contracts import Options
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS


@dataclass(kw_only=True, frozen=True)
class Recipe:
    """A paper's training: optimiser, schedule, epochs, batch size, seed and choice of the epoch."""

    optim: OptimConfig
    schedule: ScheduleConfig
    epochs: int
    batch_size: int
    seed: int = 1
    select_on: str = "validation"
    ties: str = "latest"
    patience: int = 0
    shuffle: bool = True
    drop_last: bool = False

    @classmethod
    def of(cls, options: Options) -> Recipe:
        """Return the recipe with these options, as an encoder or decoder declares them."""
        optim = OptimConfig(**options.get("optim", {}))
        schedule = ScheduleConfig(**options.get("schedule", {}))
        return cls(**{**options, "optim": optim, "schedule": schedule})


RECIPES: dict[str, Recipe] = {
    name: Recipe.of(options)
    for recipes in [part.recipes for part in ENCODERS.values()]
    + [part.recipes for part in DECODERS.values()]
    for name, options in recipes.items()
}
"""Recipes by name, with the learning rates, schedules and batch sizes of the authors' scripts."""
