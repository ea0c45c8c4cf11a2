"""Which labels a training step asks for: some of the classes, and texts that no clip holds.

A step that asks for all classes lets a model lean on a fixed list: whatever is asked, some of it is
there. With `labels.asked_share` and `labels.distractors` every step has a list of its own. It holds
all classes of the clips of its batch, a random share of the others, and distractors, whose target
is that they are absent. The lists are a function of the seed, the step and the global batch, so
they are the same on every process, and in a resumed run.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.config.run import LabelConfig, RunConfig
from avplatform.data import Data
from avplatform.data.reading.restricted import RestrictedData, class_numbers, present_by
from avplatform.data.store.schema import BACKGROUND, events
from avplatform.labels.distractors import distractors
from avplatform.models.av_model import AVModel
from avplatform.models.errors import UsageError, counted
from avplatform.tasks.batch import Batch, Processes
from avplatform.tasks.contracts import Task
from avplatform.training.start import LABELS, of_classes


class Asked(NamedTuple):
    """What a training step asks for."""

    task: Task
    """the task of these labels, which computes the losses"""
    batch: Batch
    """the batch with columns of these labels"""
    told: dict[str, Tensor]
    """arguments with which the model is called"""


class AskedLabels:
    """Choose the labels of each training step.

    Args:
        task: the task of a run.
        data: its data.
        model: its new model.
        options: the run's options of labels.
        pool: embeddings of distractors to draw from [N, E].
        seed: the run's seed.
    """

    def __init__(
        self,
        task: Task,
        data: Data,
        model: AVModel,
        options: LabelConfig,
        *,
        pool: Tensor | None,
        seed: int,
    ) -> None:
        self.task, self.spec, self.options, self.seed = task, data.spec, options, seed
        self.model, self.pool = model, pool
        self.names = events(data.spec.classes)
        own = task.model_classes(model.config.decoder._type, model.config.encoder._type)[0]
        self.places = [own.index(name) for name in self.names]
        self.background = [n for n, name in enumerate(own) if name == BACKGROUND]
        self.usable = torch.tensor([name not in set(task.unseen) for name in self.names])
        self.total = len(own)

    def choose(self, raw: Batch, batch: Batch, step: int, processes: Processes) -> Asked:
        """Return what a step asks for.

        Args:
            raw: this process's clips with the labels of the data.
            batch: the same, after `Task.prepare`.
            step: the number of the step, from 0.
            processes: the processes that share the global batch.
        """
        known = {n: v.cpu().numpy() for n, v in raw.labels.items() if n in self.spec.labels}
        held = torch.from_numpy(present_by(self.spec, known, len(raw))).to(raw.row.device).float()
        present = processes.gather(held).cpu().any(dim=0)[: len(self.names)]
        draw = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 4099 + 4098)
        kept = present & self.usable
        others = (~present & self.usable).nonzero().squeeze(1)
        count = round(self.options.asked_share * len(others))
        if not count and not kept.any() and not self.options.distractors:
            count = 1
        kept[others[torch.randperm(len(others), generator=draw)[:count]]] = True
        columns = kept.nonzero().squeeze(1)
        added = self.options.distractors
        narrow = self.task.with_classes(
            [*(self.names[n] for n in columns), *(f"distractor {n + 1}" for n in range(added))]
        )
        places = [self.places[n] for n in columns]
        new = range(self.total, self.total + added)
        told = {"asked": torch.tensor([*places, *new, *self.background])}
        if self.pool is not None:
            own = self.model.label_embeddings
            assert own is not None
            chosen = self.pool[torch.randperm(len(self.pool), generator=draw)[:added]]
            told["label_embeddings"] = torch.cat([own, chosen.to(own)])
        labels = {n: self._labels(n, v, columns) for n, v in batch.labels.items()}
        return Asked(narrow, dataclasses.replace(batch, labels=labels), told)

    def _labels(self, name: str, values: Tensor, columns: Tensor) -> Tensor:
        """Return a label of a batch for the classes of some columns, and absent distractors."""
        columns, added = columns.to(values.device), self.options.distractors
        if self.spec.label_dtypes.get(name) == "int64":
            return class_numbers(len(self.spec.classes), columns, added)[values]
        return F.pad(values.index_select(-1, columns), (0, added))


def asked_labels(config: RunConfig, task: Task, data: Data, model: AVModel) -> AskedLabels | None:
    """Return what chooses the labels of each step of a run; None: all steps ask for all classes.

    Raises:
        UsageError: the model or a loss knows the classes by their numbers, or the source of the
            label embeddings has no distractors.
        DataError: the source cannot be read.
    """
    options = config.labels
    if options.asked_share == 1 and not options.distractors:
        return None
    by_number = sorted(name.rpartition(".")[0] for name in of_classes(model) - {LABELS})
    if model.companion is not None:
        by_number.append("the guide networks")
    if getattr(config.task_config, "pair_target", "clean") == "official":
        by_number.append("pair_target 'official'")
    if by_number:
        raise UsageError(
            "labels.asked_share and labels.distractors change the list of labels in every step, "
            f"but {', '.join(dict.fromkeys(by_number))} would read it by position; switch that "
            "off, or leave both at their defaults"
        )
    pool = None
    if options.distractors:
        if model.config.learned_labels:
            raise UsageError(
                "labels.distractors: the label embeddings are learned, so no other text has one; "
                "give embeddings of texts (--labels.embeddings glove-50d), or leave it out"
            )
        whole = data.source.spec if isinstance(data, RestrictedData) else data.spec
        assert model.label_embeddings is not None
        pool = distractors(
            options.distractor_texts,
            source=options.embeddings,
            own=model.label_embeddings,
            taken=[*whole.classes, *(text for found in whole.texts.values() for text in found)],
            seed=config.seed,
            **options.how,
        )
        if len(pool) < options.distractors:
            raise UsageError(
                f"labels.distractors is {options.distractors}, but '{options.embeddings}' has "
                f"{counted(len(pool), 'word')} beyond those of the classes; give at most so many"
            )
    return AskedLabels(task, data, model, options, pool=pool, seed=config.seed)
