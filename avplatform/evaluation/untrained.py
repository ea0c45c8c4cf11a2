"""The training-free model as an answer beside a trained one, on stores of embeddings.

It is the first row of the answers that need no training, where it can be computed at once: the
store holds embeddings of CLIP and CLAP, and their weights are on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from accelerate import Accelerator

from avplatform.base.processes import on_each
from avplatform.data import Data
from avplatform.data.reading.arrays import SplitArrays
from avplatform.evaluation.evaluate import evaluate
from avplatform.features.fetch import missing_weights
from avplatform.features.recipe import FeatureRecipe
from avplatform.models.errors import AVError, DataError
from avplatform.tasks.registry import task_of_model
from avplatform.training_free.model import TRAINING_FREE, TrainingFree, kinds_of, open_for_data

ANSWER = TRAINING_FREE.replace("-", "_")
Answers = dict[str, dict[str, dict[str, float]]]


def training_free_answers(
    data: Data,
    splits: Sequence[str],
    *,
    accelerator: Accelerator,
    note: Callable[[str], None],
) -> Answers:
    """Return the headline figures of the training-free model: by split, under its name.

    Args:
        data: the data, with all of their classes.
        splits: the names of the splits to score.
        accelerator: shares the batches over its processes, each of which has to call this.
        note: called with the reason if the store holds such embeddings, but they cannot be scored.
    """
    made = data.spec.features.extractors
    recipe = FeatureRecipe.from_dict(made) if made.get("recipe") else None
    if recipe is None or kinds_of(recipe) is None:
        return {}
    models, arrays = list[TrainingFree](), list[SplitArrays]()

    def open_all() -> None:
        if missing := missing_weights(recipe, {}):
            raise DataError(f"get its weights with {' and '.join(one.how for one in missing)}")
        models.append(open_for_data(data.spec, device=accelerator.device))
        arrays.extend(data.split(split) for split in splits)

    try:
        # Scoring needs all processes, so none may begin if another could not open something.
        on_each(accelerator, open_all)
        task = task_of_model(models[0].config)
        return {
            split: {ANSWER: evaluate(models[0], task, each, accelerator=accelerator).figures()}
            for split, each in zip(splits, arrays, strict=True)
        }
    except AVError as error:
        note(f"{TRAINING_FREE} is not among the answers without training: {error}")
        return {}
