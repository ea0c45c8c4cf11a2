"""Open a run: the task, the data and the model that its configuration asks for."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avplatform.config.run import LabelConfig, RunConfig
from avplatform.data import Data, open_data
from avplatform.data.adapters.registry import find_adapter, make_task
from avplatform.data.reading.arrays import known_labels
from avplatform.data.store.schema import SPLITS, DataSpec, check_labels
from avplatform.labels.assumed import CLIPS
from avplatform.labels.bank import check_bank
from avplatform.labels.cache import label_embeddings
from avplatform.labels.held_out import data_for, with_others
from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig, options_of
from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders import DECODERS, label_decoders
from avplatform.models.errors import UsageError
from avplatform.models.texts.glove import INSTALL_GLOVE, MissingWordError, unknown_words
from avplatform.tasks.contracts import Task


class OpenRun(NamedTuple):
    """The task of a run, its data as the task sees them, and its model."""

    task: Task
    data: Data
    model: AVModel


def open_run(config: RunConfig, **told: Any) -> OpenRun:
    """Return the task, data and model of a run, the model's weights drawn from the run's seed.

    Args:
        config: the run's configuration.
        told: further arguments of `open_data`.

    Raises:
        UsageError: the task, encoder, decoder and data do not fit together.
        DataError: the data or the label embeddings cannot be read, or lack something.
    """
    data: Data = open_data(config.data, task=config.task, cache_dir=config.cache_dir, **told)
    task = build_task(config, data.spec)
    data = data_of_run(config, task, data)
    torch.manual_seed(config.seed)
    model = new_model(config, task, data.spec.features, data.spec)
    clips_of_bank(config, task, model)
    return OpenRun(task, data, model.double() if config.precision == "float64" else model)


def data_of_run(config: RunConfig, task: Task, data: Data) -> Data:
    """Return opened data as the task of a run sees them, checked before a model is built.

    Raises:
        UsageError: a split is missing, or the labels that the run's supervision needs are missing.
        DataError: the data have other classes than the task, or an empty split.
    """
    if config.held_out:
        data = data_for(data, task)
    for split in (*task.train_splits()[:1], "validation", "test"):
        data.split_name(split)
    check_labels(data.spec, task)
    task.check_training_labels(known_labels(data.spec, *task.train_splits()[:1]))
    return data


def clips_of_bank(config: RunConfig, task: Task, model: AVModel) -> int:
    """Return how many training clips the bank of a run keeps; 0: it makes none.

    Raises:
        UsageError: the run is to make a bank, but cannot.
    """
    wanted, asked = config.bank_clips, config.bank_clips is not None
    if wanted == 0:
        return 0
    try:
        if config.streaming:
            raise UsageError(
                "a streamed training makes no bank; leave it out, and make the bank afterwards "
                "with `avplatform bank RUN`, which reads the whole training split"
            )
        check_bank(model, task)
    except UsageError as error:
        if not asked:
            return 0
        raise UsageError(f"bank_clips is {wanted}, but {error}") from None
    return CLIPS if wanted is None else wanted


def untimed_splits(spec: DataSpec, task: Task) -> list[str]:
    """Return those of validation and test whose events have no times."""
    timed = task.from_events.labels.items() if task.from_events is not None else ()
    needed = {name for name, when in timed if when == "timed"} & set(spec.labels)
    return [split for split in SPLITS[1:] if needed - set(known_labels(spec, split))]


def build_task(config: RunConfig, spec: DataSpec | None = None) -> Task:
    """Return the task of a run, without the classes that it holds out.

    Args:
        config: the run's configuration.
        spec: description of the data; default: that of the dataset that the task is made for.

    Raises:
        UsageError: `spec` is None and no dataset is registered for the task, or the held-out
            classes are refused (see `without_held_out`).
    """
    return without_held_out(make_task(config.task, config.task_config, spec=spec), config)


def build_model(config: RunConfig, task: Task, spec: DataSpec) -> AVModel:
    """Return a new model for data of the run's task; the caller seeds the random generator before.

    Raises:
        UsageError: the task, encoder, decoder and data do not fit together.
        DataError: the data have other classes than the task.
    """
    check_labels(spec, task)
    return new_model(config, task, spec.features, spec)


def new_model(
    config: RunConfig, task: Task, features: FeatureSpec, spec: DataSpec | None = None
) -> AVModel:
    """Return a new model that reads these features; the caller seeds the random generator before.

    Where nobody set the source of label embeddings and the default one lacks a word, they are
    learned with the model (`with_learned_labels` says so).

    Raises:
        UsageError: the task, encoder, decoder and features do not fit together.
        DataError: the label embeddings cannot be read, or lack a word.
    """
    model_config = make_model_config(config, task, features, spec)
    model = AVModel(model_config, label_embeddings=_embeddings(config, task, model_config))
    model.companion = task.companion(model_config)
    return model


def _embeddings(config: RunConfig, task: Task, model_config: AVModelConfig) -> Tensor | None:
    """Return the label embeddings of a new model, and note in its config where they came from."""
    if not DECODERS[config.decoder].needs_labels:
        return None
    texts, source = model_config.label_texts, config.labels.embeddings
    if task.unseen and source.partition(":")[0] == "learned":
        raise UsageError(
            f"labels.embeddings is '{source}', but {len(task.unseen)} classes have no clip to "
            "learn them from; give embeddings of texts, such as glove-50d or a file"
        )
    try:
        embeddings = label_embeddings(texts, source, **config.labels.how)
    except MissingWordError:
        if not config.labels_left_open or config.held_out or task.unseen:
            raise
        embeddings = label_embeddings(texts, "learned")
    model_config.label_dim = embeddings.values.shape[1]
    model_config.label_source = embeddings.source
    model_config.learned_labels = embeddings.source["kind"] == "learned"
    return embeddings.values


def with_learned_labels(config: RunConfig, model: AVModel) -> tuple[RunConfig, str]:
    """Return the configuration with learned label embeddings if the model has them, and why.

    The line is empty where nothing changes.
    """
    if not model.config.learned_labels or config.labels.embeddings.partition(":")[0] == "learned":
        return config, ""
    words = unknown_words(model.config.label_texts)
    shown = ", ".join(f"'{word}'" for word in words[:5]) + (", ..." if len(words) > 5 else "")
    labels = dataclasses.replace(config.labels, embeddings="learned")
    return dataclasses.replace(config, labels=labels), (
        f"the shipped GloVe table has no vector for {shown}, so the label embeddings are learned "
        "with the model (--labels.embeddings learned), which cannot look for other labels then; "
        f"for embeddings of the texts, `{INSTALL_GLOVE}` and train again"
    )


def make_model_config(
    config: RunConfig, task: Task, features: FeatureSpec, spec: DataSpec | None = None
) -> AVModelConfig:
    """Return the config of a run's model, for label embeddings of the shipped width.

    The clip length is that of `spec`, or else of the dataset that the task is made for.

    Raises:
        UsageError: the options of task, encoder and decoder contradict each other.
    """
    task.check(config.encoder, config.decoder, config.encoder_config, config.decoder_config)
    if config.labels != LabelConfig() and not DECODERS[config.decoder].needs_labels:
        raise UsageError(
            f"labels: {config.decoder} does not use label embeddings; leave the labels.* options "
            f"out, or use {label_decoders()}"
        )
    reduction = getattr(config.encoder_config, "map_reduction", "mean")
    if reduction != "mean" and features.map_size is None:
        raise UsageError(
            f"encoder_config.map_reduction is '{reduction}', but the data hold vectors, not maps; "
            "leave it at mean"
        )
    classes, texts = task.model_classes(config.decoder, config.encoder)
    clips = spec or find_adapter(config.task)
    model_config = AVModelConfig(
        task=config.task,
        classes=classes,
        label_texts=texts if DECODERS[config.decoder].needs_labels else [],
        features=features,
        encoder=config.encoder_config,
        decoder=config.decoder_config,
        task_config=options_of(config.task_config),
    )
    if clips is not None:
        model_config.segments = clips.segments
        model_config.segment_seconds = clips.segment_seconds
    return model_config


def published_config(config: RunConfig) -> AVModelConfig | None:
    """Return the config of a run's model for the features of the published models of its task.

    Return None if no dataset is registered for the task.

    Raises:
        UsageError: the options of task, encoder and decoder contradict each other.
    """
    dataset = find_adapter(config.task)
    if dataset is None:
        return None
    return make_model_config(config, build_task(config), dataset.features)


def without_held_out(task: Task, config: RunConfig) -> Task:
    """Return the task of a run, without the classes that the run holds out, if any.

    Raises:
        UsageError: a class is unknown, no class is left, or the model could not find classes that
            it was not trained on.
    """
    if not config.held_out:
        return task
    if not DECODERS[config.decoder].needs_labels:
        raise UsageError(
            f"held_out: {config.decoder} has one output per class and can never find a class that "
            f"it was not trained on; use --decoder {label_decoders()}"
        )
    if config.labels.embeddings.partition(":")[0] == "learned":
        raise UsageError(
            "held_out: learned label embeddings cannot embed other texts; "
            "use --labels.embeddings glove-50d"
        )
    if config.streaming:
        raise UsageError("held_out reads mapped data; leave out --streaming")
    task.check_held_out(config.encoder)
    return with_others(task, config.held_out)
