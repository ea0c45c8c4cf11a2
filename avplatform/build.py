"""From a run's configuration and a dataset to a task and a model."""

from __future__ import annotations

import copy
import dataclasses

import torch

from avplatform.config import LabelConfig, RunConfig
from avplatform.data.schema import DataSpec
from avplatform.label_cache import label_embeddings
from models.av_model import AVModel
from models.config import AVModelConfig, FeatureSpec, config_from_dict, config_to_dict
from models.decoders import DECODERS
from models.errors import DataError, UsageError, unknown_name
from models.label_files import LabelEmbeddings
from tasks.contracts import Task
from tasks.registry import TASKS


def build_task(config: RunConfig) -> Task:
    """Return the task of a run, without the classes that it holds out."""
    from avplatform.held_out import without_held_out

    return without_held_out(TASKS[config.task](config.task_config), config)


def build_model(config: RunConfig, task: Task, spec: DataSpec) -> AVModel:
    """Return a freshly initialised model for a run's data; the caller seeds the generator.

    Raises:
        UsageError: the task, encoder, decoder and data do not fit together.
    """
    if spec.task != config.task:
        raise UsageError(f"the data '{spec.name}' are for {spec.task}, not {config.task}; give --task {spec.task}")
    check_labels(spec, task)
    model_config = make_model_config(config, task, spec.features)
    embeddings = embed(model_config.label_texts, config.labels) if DECODERS[config.decoder].needs_labels else None
    if embeddings is None:
        return AVModel(model_config)
    model_config.label_dim, model_config.label_source = embeddings.values.shape[1], embeddings.source
    model_config.learned_labels = embeddings.source["kind"] == "learned"
    return AVModel(model_config, label_embeddings=embeddings.values)


def make_model_config(config: RunConfig, task: Task, features: FeatureSpec) -> AVModelConfig:
    """Return the config of a run's model, with label embeddings as wide as the shipped ones.

    Raises:
        UsageError: the options of task, encoder and decoder contradict each other.
    """
    task.check(config.encoder, config.decoder, config.encoder_config, config.decoder_config)
    if config.labels != LabelConfig() and not DECODERS[config.decoder].needs_labels:
        raise UsageError(f"labels: {config.decoder} queries with no labels; leave the labels.* options out, or use leap")
    reduction = getattr(config.encoder_config, "map_reduction", "mean")
    if reduction != "mean" and features.map_size is None:
        raise UsageError(
            f"encoder_config.map_reduction is '{reduction}', but the data hold vectors, no maps; leave it at mean"
        )
    classes, texts = task.model_classes(config.decoder, config.encoder)
    return AVModelConfig(
        task=config.task,
        classes=classes,
        label_texts=texts if DECODERS[config.decoder].needs_labels else [],
        features=features,
        encoder=config.encoder_config,
        decoder=config.decoder_config,
        task_config={k: v for k, v in config_to_dict(config.task_config).items() if k != "_type"},
    )


def check_labels(spec: DataSpec, task: Task) -> None:
    """Raise DataError unless the data's class list is the task's, in the same order."""
    if list(spec.classes) != list(task.classes):
        wrong = next(
            (f"{a!r} instead of {b!r}" for a, b in zip(spec.classes, task.classes, strict=False) if a != b), "their number"
        )
        raise DataError(f"the classes of '{spec.name}' are not those of {task.name} ({wrong}); write the data again")


def embed(texts: list[str], labels: LabelConfig) -> LabelEmbeddings:
    """Return label embeddings [C, E] of class texts, with their provenance; slow sources are asked once and kept.

    Raises:
        UsageError: an unknown source of embeddings.
        DataError: a source that cannot be read, or a word that it lacks.
    """
    return label_embeddings(texts, labels.embeddings, pooling=None if labels.pooling == "default" else labels.pooling)


def task_of_model(config: AVModelConfig) -> Task:
    """Return the task that a saved model was trained for, with its own decisions, thresholds and classes."""
    task = whole_task_of_model(config)
    names = [name for name in config.classes if name != "background"]
    if set(names) < set(task.classes) - {"background"}:  # trained without some classes
        return task.with_classes(names, config.label_texts[: len(names)] or None)
    return task


def whole_task_of_model(config: AVModelConfig) -> Task:
    """Return the task of a saved model with all classes, also those that it was trained without."""
    if config.task not in TASKS:
        raise unknown_name("task", config.task, TASKS)
    kind = TASKS[config.task]
    return kind(config_from_dict(kind.Config, config.task_config))


def with_threshold(task: Task, threshold: float | None) -> Task:
    """Return a task that decides from another probability on; None: its own.

    Raises:
        UsageError: the task has no threshold, or a threshold that is no probability.
    """
    if threshold is None:
        return task
    if not hasattr(task.config, "threshold"):
        raise UsageError(f"threshold is for avvp; {task.name} decides by the largest score and has none")
    other = copy.copy(task)
    other.config = dataclasses.replace(task.config, threshold=threshold)
    return other


def count_parameters(model: torch.nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
