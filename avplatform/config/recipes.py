"""Published training recipes, as data: one table, from which presets are composed.

Source: HAN (ECCV 2020), VALOR (NeurIPS 2023), LEAP (ECCV 2024), AVE (ECCV 2018): the values of the authors' scripts.
"""

from __future__ import annotations

from dataclasses import dataclass

from avplatform.config.optim import OptimConfig, ScheduleConfig


@dataclass(kw_only=True, frozen=True)
class Recipe:
    """How a paper trained: optimiser, schedule, epochs, batch size (clips a step), seed, and how it chose its epoch."""

    optim: OptimConfig
    schedule: ScheduleConfig
    epochs: int
    batch_size: int
    seed: int
    select_on: str = "validation"
    ties: str = "latest"
    shuffle: bool = True
    drop_last: bool = False


_TENTH_EVERY_10 = ScheduleConfig(name="epoch_decay", factor=0.1, every=10)
_VALOR_COSINE = ScheduleConfig(name="warmup_cosine", warmup_epochs=10, min_ratio=0.01)


def _valor(lr: float, seed: int) -> Recipe:
    optim = OptimConfig(
        name="adamw", lr=lr, betas=(0.5, 0.999), eps=1e-8, weight_decay=1e-3, clip_norm=1.0
    )
    return Recipe(
        optim=optim, schedule=_VALOR_COSINE, epochs=60, batch_size=64, seed=seed, ties="first"
    )


def _ave(epochs: int) -> Recipe:
    schedule = ScheduleConfig(name="step_decay", factor=0.1, every=15000)
    return Recipe(
        optim=OptimConfig(lr=1e-3),
        schedule=schedule,
        epochs=epochs,
        batch_size=64,
        seed=3344,
        ties="first",
    )


def _psp(milestones: tuple[int, ...]) -> Recipe:
    schedule = ScheduleConfig(name="milestones", factor=0.8, milestones=milestones)
    return Recipe(
        optim=OptimConfig(lr=1e-3), schedule=schedule, epochs=300, batch_size=128, seed=123
    )


def _cmbs(lr: float, milestones: tuple[int, ...], seed: int) -> Recipe:
    schedule = ScheduleConfig(name="milestones", factor=0.5, milestones=milestones)
    return Recipe(
        optim=OptimConfig(lr=lr, clip_norm=0.5),
        schedule=schedule,
        epochs=200,
        batch_size=64,
        seed=seed,
        ties="first",
    )


RECIPES: dict[str, Recipe] = {
    "han": Recipe(
        optim=OptimConfig(lr=3e-4), schedule=_TENTH_EVERY_10, epochs=40, batch_size=16, seed=1
    ),
    "mmpyr": Recipe(
        optim=OptimConfig(lr=1e-4), schedule=_TENTH_EVERY_10, epochs=40, batch_size=16, seed=1
    ),
    "leap": Recipe(
        optim=OptimConfig(lr=1e-4), schedule=_TENTH_EVERY_10, epochs=30, batch_size=32, seed=1
    ),
    "leap-paper": Recipe(
        optim=OptimConfig(lr=1e-4), schedule=_TENTH_EVERY_10, epochs=20, batch_size=32, seed=1
    ),
    "valor": _valor(1e-4, 1000),
    "valor-plus": _valor(3e-4, 64),
    "valor-plusplus": _valor(3e-4, 87),
    "ave": _ave(300),
    "ave-weak": _ave(250),
    "psp": _psp((60, 120)),
    "psp-weak": _psp((80, 160)),
    "cmbs": _cmbs(7e-4, (10, 20, 30), 43),
    "cmbs-weak": _cmbs(6e-4, (10, 20, 40), 666),
}
"""Recipes by name; learning rates, schedules and batch sizes as in the authors' scripts."""
