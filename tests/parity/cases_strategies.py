"""Golden cases of MA, JoMoLD and CVCMS: what they train, and on which labels."""

from __future__ import annotations

import torch

from avplatform.config.optim import ScheduleConfig
from avplatform.tasks.avvp.denoise import (
    drop_counts,
    dropped_labels,
    label_losses,
    ratio_strength,
)
from avplatform.tasks.avvp.losses import smooth
from avplatform.tasks.batch import Moment
from avplatform.training.optim import learning_rate
from tests.parity.golden_case import Case

LETTERS = "av"


def jomold_denoise(case: Case) -> None:
    config = case.config
    smoothing = config["a_smooth"], config["v_smooth"]
    produced = {}
    for name in config["scenarios"]:
        probabilities, ratios = (
            torch.stack([case.stored[f"{name}_given_{what}"] for what in pair])
            for pair in (("a_prob", "v_prob"), ("ratio_a", "ratio_v"))
        )
        target = case.stored[f"{name}_target"]
        labels = target.bool().expand(2, -1, -1)
        counts, _ = drop_counts(ratios, labels)
        losses = label_losses(probabilities, (smooth(1.0, smoothing[0]), smooth(1.0, smoothing[1])))
        dropped = dropped_labels(losses, labels, counts)
        for letter, gone, s in zip(LETTERS, dropped, smoothing, strict=True):
            produced[f"{name}_removed_{letter}"] = gone
            produced[f"{name}_denoised_{letter}"] = smooth(target, s) * ~gone
    given = tuple(key for key in case.stored if "_given_" in key or key.endswith("_target"))
    case.compare(produced, given=given)


def jomold_schedule(case: Case) -> None:
    config = case.config
    batches, epochs = config["batches_per_epoch"], config["epochs"]

    def factors(official: str) -> list[list[list[float]]]:
        return [
            [
                [
                    ratio_strength(
                        Moment(epoch, batch, batches),
                        warm_up="off" if length is None else official,
                        epochs=length or 1.0,
                    )
                    for batch in range(batches)
                ]
                for epoch in range(1, epochs + 1)
            ]
            for length in config["warm_up_epochs"]
        ]

    schedule = ScheduleConfig(
        name="epoch_decay", factor=config["lr_gamma"], every=config["lr_step_size"]
    )
    rates = [
        learning_rate(schedule, base_lr=config["lr"], epoch=e, epochs=config["lr_epochs"])
        for e in range(1, config["lr_epochs"] + 1)
    ]
    case.compare(
        {
            "factor": factors("official"),
            "intended": factors("linear"),
            "lr_per_epoch": rates,
        }
    )


CASES = {
    "jomold_denoise": jomold_denoise,
    "jomold_schedule": jomold_schedule,
}
