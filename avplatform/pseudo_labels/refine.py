"""Refine the video labels of a dataset with a trained model, and compare them with the truth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from avplatform.base.console import Console
from avplatform.base.files import disk_errors, write_json
from avplatform.data import Data
from avplatform.data.reading.arrays import SplitArrays
from avplatform.data.reading.sampling import epoch_batches
from avplatform.models.av_model import WEIGHTS_FILE, AVModel, model_of_run
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.models.files import file_sha256, save_tensors, write_atomic
from avplatform.models.paths import expanded
from avplatform.pseudo_labels import noise_ratio as rule
from avplatform.pseudo_labels.exchange import (
    Both,
    Exchanged,
    divisors,
    dropped_labels,
    partners,
)
from avplatform.tasks.avvp.losses import video_probabilities
from avplatform.tasks.avvp.metrics import STREAMS
from avplatform.tasks.avvp.refinements import NoiseRatios, RefinedLabels
from avplatform.tasks.batch import Batch
from avplatform.tasks.registry import TASKS

PART = 512
"""Clips whose probabilities are written together; labelling that was stopped goes on after them."""
Tables = TypeVar("Tables", bound=tuple[Tensor, ...])


class OfModality(NamedTuple):
    """Video probabilities of audio and visual, each [N, C]."""

    audio: Tensor
    visual: Tensor


class Refiner:
    """A trained model, and the splits whose labels it refines.

    Args:
        model: the model; it must be one of video parsing with the classes of the data.
        name: the model's name in messages and in the files that are written.
        data: the data.
        accelerator: the accelerator whose device is used.
        console: shows the progress.
        batch_size: clips per forward pass.
        trained_on: the checksum of the data that the model was trained on; None: not known.

    Raises:
        UsageError: the task has no separate labels of audio and visual.
        DataError: the model was trained on other data, for other classes, or reads other features.
    """

    def __init__(
        self,
        model: AVModel,
        *,
        name: str,
        data: Data,
        accelerator: Accelerator,
        console: Console,
        batch_size: int = 64,
        trained_on: str | None = None,
    ) -> None:
        check_separate(model.config.task)
        if tuple(model.config.classes) != tuple(data.spec.classes):
            raise DataError(
                f"{name} was trained for {counted(len(model.config.classes), 'class')} that are "
                f"not those of '{data.name}' ({counted(len(data.spec.classes), 'class')}); refine "
                "labels with a model that was trained on these data"
            )
        if data.spec.features != model.config.features:
            raise DataError(
                f"{name} reads {model.config.features} but '{data.name}' holds "
                f"{data.spec.features}; use data with the same features"
            )
        if trained_on is None:
            console.note(
                f"{name} does not say which data it was trained on; its predictions refine only "
                "the labels of the data that it was trained on"
            )
        elif trained_on != data.checksum:
            raise DataError(
                f"{name} was trained on other data (checksum {trained_on[:12]}) than '{data.name}' "
                f"({data.checksum[:12]}); refine labels with a model that was trained on these data"
            )
        self.trained_on = trained_on
        self.model, self.name, self.data = model.to(accelerator.device).eval(), name, data
        self.device, self.console, self.batch_size = accelerator.device, console, batch_size

    def about(self, **options: Any) -> dict[str, Any]:
        """Return what the file that is written says about how its labels were made."""
        folder = model_of_run(expanded(self.name)) if expanded(self.name).is_dir() else None
        weights = folder / WEIGHTS_FILE if folder is not None else None
        found = file_sha256(weights) if weights is not None and weights.is_file() else None
        return {
            "model": self.name,
            "model_sha256": found,
            "model_data_checksum": self.trained_on,
            "data": self.data.name,
            "data_checksum": self.data.checksum,
            "synthetic": self.data.synthetic,
            **options,
        }

    def exchange(
        self, split: SplitArrays, other: np.ndarray, *, parts: Path, about: Any
    ) -> Exchanged:
        """Return the video probabilities of all clips with their own and with exchanged tracks.

        Args:
            split: the clips.
            other: the clip that each one exchanges tracks with, see `partners`.
            parts: folder of what is known already.
            about: what the parts were made with.
        """

        def make(index: np.ndarray) -> Exchanged:
            own, foreign = self._batch(split, index), self._batch(split, other[index])
            return Exchanged(
                *self._video(own),
                *self._video(tracks(audio=own, visual=foreign)),
                *self._video(tracks(audio=foreign, visual=own)),
            )

        return self._in_parts(split, make, Exchanged, parts, about)

    def probabilities(self, split: SplitArrays, *, parts: Path, about: Any) -> OfModality:
        """Return the video probabilities of all clips; each stream is encoded alone if possible."""

        def make(index: np.ndarray) -> OfModality:
            with self.model.encoder.self_only():
                return OfModality(*self._video(self._batch(split, index)))

        return self._in_parts(split, make, OfModality, parts, about)

    def _batch(self, split: SplitArrays, index: np.ndarray) -> Batch:
        return split.batch(index, labels=[]).to(self.device)

    @torch.inference_mode()
    def _video(self, batch: Batch) -> tuple[Tensor, Tensor]:
        parse = self.model(batch.audio, batch.visual, batch.motion).parse
        audio, visual, _ = video_probabilities(parse)
        return audio.float().cpu(), visual.float().cpu()

    def _in_parts(
        self,
        split: SplitArrays,
        make: Callable[[np.ndarray], Tables],
        kind: type[Tables],
        folder: Path,
        about: Any,
    ) -> Tables:
        """Call `make` for all clips in groups, and keep what it returned for a later call."""
        names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
        found = []
        with (
            disk_errors(folder, go_on="the same command"),
            self.console.bar(f"read {split.name}", total=len(split)) as bar,
        ):
            _claim(folder, about)
            for start in range(0, len(split), PART):
                file = folder / f"{split.name}-{start:07}.safetensors"
                if not file.is_file():
                    index = np.arange(start, min(start + PART, len(split)))
                    groups = [
                        make(index[i : i + self.batch_size])
                        for i in range(0, len(index), self.batch_size)
                    ]
                    tables = [torch.cat(t) for t in zip(*groups, strict=True)]
                    content = dict(zip(names, tables, strict=True))
                    write_atomic(file, partial(save_tensors, content))
                found.append(load_file(file))
                bar.advance(len(found[-1][names[0]]))
        return kind(*(torch.cat([part[name] for part in found]) for name in names))


def tracks(*, audio: Batch, visual: Batch) -> Batch:
    """Return a batch with the audio of one batch and the visual features of another."""
    return Batch(audio.audio, visual.visual, visual.motion, audio.row, audio.clip_id)


def check_separate(task: str) -> None:
    """Raise UsageError unless a task labels what is heard and what is seen apart."""
    if TASKS[task].streams != "apart":
        raise UsageError(
            f"refined labels say whether a class is heard or seen; an event of {task} is both, "
            "so there is nothing to refine"
        )


def refine_by_exchange(
    refiner: Refiner, out: Path, *, seed: int = 2, both: Both = "allow"
) -> tuple[RefinedLabels, RefinedLabels | None]:
    """Return refined labels of the training clips, and of the validation clips to score the rule.

    The divisors of the rule are those of the training clips. Validation is None where its truth is
    not known.

    Source: MA (CVPR 2021), see `exchange`.
    """
    known = refiner.about(rule="exchange", seed=seed)  # what the probabilities depend on
    about = known | {"both": both}
    parts, refined = parts_of(out), []
    scale: tuple[Tensor, Tensor] | None = None
    for split in refined_splits(refiner.data):
        other, paired = partners(split.clip_ids, split.labels("weak"), seed=seed)
        found = refiner.exchange(split, other, parts=parts, about=known)
        weak = torch.from_numpy(np.array(split.labels("weak"), dtype=np.float32))
        if scale is None:
            scale = divisors(found.audio, weak), divisors(found.visual, weak)
        audio, visual = dropped_labels(found, weak, scale, both=both)
        tested = torch.from_numpy(paired)[:, None]  # not without a partner
        refined.append(
            RefinedLabels(
                classes=tuple(refiner.data.spec.classes),
                clip_ids=tuple(split.clip_ids),
                keep_audio=~(audio & tested).numpy(),
                keep_visual=~(visual & tested).numpy(),
                made_by=about | {"without_partner": int((~paired).sum())},
            )
        )
    return refined[0], refined[1] if len(refined) > 1 else None


def ratios_of_noise(
    refiner: Refiner,
    out: Path,
    *,
    seed: int = 6,
    audio_threshold: float = rule.AUDIO_THRESHOLD,
    visual_threshold: float = rule.VISUAL_THRESHOLD,
    mean_batch: int = 128,
) -> NoiseRatios:
    """Return the noise ratios of the training clips.

    Source: JoMoLD (ECCV 2022), see `noise_ratio`.
    """
    # The probabilities depend on the model and the data alone: other thresholds go on with them.
    known = refiner.about(rule="noise-ratio")
    about = known | {
        "seed": seed,
        "audio_threshold": audio_threshold,
        "visual_threshold": visual_threshold,
        "mean_batch": mean_batch,
    }
    split = refined_splits(refiner.data)[0]
    found = refiner.probabilities(split, parts=parts_of(out), about=known)
    weak = torch.from_numpy(np.array(split.labels("weak"), dtype=np.float32))
    batches = [
        torch.from_numpy(index)
        for index in epoch_batches(len(weak), mean_batch, seed=seed, epoch=1)
    ]
    settings = zip(
        found,
        (rule.AUDIO_TARGET, rule.VISUAL_TARGET),
        (audio_threshold, visual_threshold),
        strict=True,
    )
    audio, visual = (
        rule.noise_ratio(
            probability,
            weak,
            rule.class_means(probability, batches),
            target=target,
            threshold=threshold,
        )
        for probability, target, threshold in settings
    )
    return NoiseRatios(tuple(refiner.data.spec.classes), audio, visual, about)


def without_classes(
    data: Data, *, audio: Sequence[int], visual: Sequence[int], split: SplitArrays
) -> RefinedLabels:
    """Return labels that drop some classes from a modality of every clip: no model is asked."""
    weak = np.array(split.labels("weak"), dtype=bool)
    keep = {name: np.ones_like(weak) for name in STREAMS}
    for name, classes in (("audio", audio), ("visual", visual)):
        keep[name][:, list(classes)] = ~weak[:, list(classes)]
    names = {
        m: [data.spec.classes[c] for c in cs] for m, cs in (("audio", audio), ("visual", visual))
    }
    return RefinedLabels(
        classes=tuple(data.spec.classes),
        clip_ids=tuple(split.clip_ids),
        keep_audio=keep["audio"],
        keep_visual=keep["visual"],
        made_by={"rule": "drop", "data": data.name, "data_checksum": data.checksum, **names},
    )


def refined_splits(data: Data) -> list[SplitArrays]:
    """Return the training split, and validation if its events have times to compare with."""
    train = data.split("train")
    try:
        validation = data.split("validation")
        validation.labels("dense_audio"), validation.labels("dense_visual")
    except (DataError, UsageError):
        return [train]
    return [train, validation]


def parts_of(out: Path) -> Path:
    """Return the folder that holds what is already known of a file that is being made."""
    return out.with_name(f".{out.name}.parts")


def finish(out: Path) -> None:
    """Remove the parts of a file that is finished."""
    shutil.rmtree(parts_of(out), ignore_errors=True)


def _claim(folder: Path, about: Any) -> None:
    """Make the folder of parts, or check that it is of the same model, data and options."""
    record, said = folder / "about.json", json.loads(json.dumps(about))
    if record.is_file():
        before = json.loads(record.read_text(encoding="utf-8"))
        if before != said:
            differing = sorted(k for k in {*before, *said} if before.get(k) != said.get(k))
            raise DataError(
                f"{folder} holds the beginning of labels with another {', '.join(differing)}; "
                "delete it, or give another --out"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, said)


class Truth(NamedTuple):
    """Which weak labels do not hold in a modality: bool [N, C] each, of the clips of a split."""

    weak: np.ndarray
    audio: np.ndarray
    visual: np.ndarray

    @classmethod
    def of(cls, split: SplitArrays) -> Truth:
        """Return the truth of a split with dense labels."""
        weak = np.array(split.labels("weak"), dtype=bool)
        wrong = [
            weak & ~np.array(split.labels(f"dense_{name}"), dtype=bool).any(axis=1)
            for name in STREAMS
        ]
        return cls(weak, *wrong)

    def shares(self) -> dict[str, np.ndarray]:
        """Return the share of each class's labels that do not hold, by modality; NaN: no label."""
        with np.errstate(invalid="ignore"):
            total = self.weak.sum(axis=0)
            return {"audio": self.audio.sum(0) / total, "visual": self.visual.sum(0) / total}

    def rival(self) -> tuple[str, int]:
        """Return the modality and class with most labels that do not hold."""
        counts = np.stack([self.audio.sum(axis=0), self.visual.sum(axis=0)])
        modality, index = np.unravel_index(counts.argmax(), counts.shape)
        return STREAMS[modality], int(index)

    def judge(self, refined: RefinedLabels) -> dict[str, dict[str, float]]:
        """Return by modality how many labels were dropped, rightly, and of those that should be.

        "dropped" is a number; "precision" the share of it that is right, "recall" the share of
        the wrong labels that was dropped; both in percent, NaN where there is nothing to divide by.
        """
        out = {}
        for name, wrong in (("audio", self.audio), ("visual", self.visual)):
            gone = ~getattr(refined, f"keep_{name}")
            hits, dropped, all_wrong = int((gone & wrong).sum()), int(gone.sum()), int(wrong.sum())
            out[name] = {
                "dropped": dropped,
                "precision": 100 * hits / dropped if dropped else np.nan,
                "recall": 100 * hits / all_wrong if all_wrong else np.nan,
            }
        return out
