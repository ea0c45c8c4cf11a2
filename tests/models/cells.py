"""Every cell of the matrix at small widths, with random features and realistic labels."""

from __future__ import annotations

import dataclasses
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from avplatform.config.build import build_model, build_task
from avplatform.config.run import LabelConfig, RunConfig, default_config
from avplatform.data.adapters.registry import adapter_of_task, make_task
from avplatform.data.store.schema import DataSpec
from avplatform.models.av_model import AVModel
from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from avplatform.tasks.registry import TASKS

FEATURES = {
    "avvp": FeatureSpec(audio_dim=6, visual_dim=8, motion_dim=4),
    "avel": FeatureSpec(audio_dim=6, visual_dim=8, map_size=(2, 3)),
    "ovavel": FeatureSpec(audio_dim=6, visual_dim=6),
}
WIDTH = 16  # of all encoders, and of the texts of decoders that compare both
SMALL: dict[str, dict[str, Any]] = {
    "han": {"width": 16, "hidden": 8, "heads": 2},
    "dhhn": {"width": 16, "hidden": 8, "heads": 2},
    "mmpyr": {"width": 16, "hidden": 8, "heads": 2, "levels": 2},
    "ave": {"lstm_width": 8, "attention_width": 12},
    "psp": {"lstm_width": 8, "attention_width": 12},
    "cmbs": {
        "width": 16,
        "heads": 2,
        "layers": 1,
        "encoder_hidden": 8,
        "decoder_hidden": 8,
        "lstm_width": 8,
    },
    "leap": {"hidden": 8, "heads": 2},
    "dch": {"hidden": 8},
    "mmil": {},
    "cvcms": {"token_width": 4, "hidden": 4},
    "cmpae": {},
    "mgn": {"width": 16, "heads": 2, "hidden": 8, "layers": 1},
    "temporal": {"width": 16, "attention_width": 8, "hidden": 8, "heads": 2},
    "identity": {"width": 16},
    "cosine": {},
    "group": {"heads": 2, "hidden": 8, "token_hidden": 4, "layers": 1},
}
CELLS = [(t, e, d) for t in ("avvp", "avel", "ovavel") for e in ENCODERS for d in DECODERS]
SUPERVISED_CELLS = [(t, e, d, s) for t, e, d in CELLS for s in TASKS[t].supervisions]


class Cell(NamedTuple):
    """A run's configuration and what the platform builds from it."""

    config: RunConfig
    task: Task
    model: AVModel


def cell(
    task: str,
    encoder: str,
    decoder: str,
    supervision: str | None = None,
    *,
    features: FeatureSpec | None = None,
    segments: int = 10,
    encoder_options: dict[str, Any] | None = None,
    decoder_options: dict[str, Any] | None = None,
    task_options: dict[str, Any] | None = None,
) -> Cell:
    """Build one cell as a run does; options go over the task's own and the small widths."""
    config = default_config(task, encoder, decoder, supervision)
    config = shrunk(config, encoder_options=encoder_options, decoder_options=decoder_options)
    task_config = dataclasses.replace(config.task_config, **(task_options or {}))
    config = with_small_texts(dataclasses.replace(config, task_config=task_config))
    return build_cell(config, features or FEATURES[task], segments)


def shrunk(
    config: RunConfig,
    *,
    encoder_options: dict[str, Any] | None = None,
    decoder_options: dict[str, Any] | None = None,
) -> RunConfig:
    """Return a run's configuration with small widths, over which the options go."""
    small = {**SMALL[config.decoder], **(decoder_options or {})}
    form = {"form": getattr(config.decoder_config, "form", None), **small}["form"]
    if form == "pooled":
        small.pop("hidden", None)  # nothing would read it
    if form == "paper":
        small["heads"] = 1
    return dataclasses.replace(
        config,
        encoder_config=dataclasses.replace(
            config.encoder_config, **{**SMALL[config.encoder], **(encoder_options or {})}
        ),
        decoder_config=dataclasses.replace(config.decoder_config, **small),
    )


def with_small_texts(config: RunConfig) -> RunConfig:
    """Return a run whose label texts are as wide as the small encoders, if it compares both."""
    encoder, decoder = config.encoder, config.decoder
    if not DECODERS[decoder].texts_as_wide(config.decoder_config):
        return config
    classes = build_task(config).model_classes(decoder, encoder)[0]
    return dataclasses.replace(config, labels=LabelConfig(embeddings=texts_file(len(classes))))


@cache
def texts_file(count: int) -> str:
    """Write random vectors of so many texts, of the encoders' small width; return the file."""
    file = Path(tempfile.mkdtemp()) / "texts.npy"
    np.save(file, np.random.default_rng(count).standard_normal((count, WIDTH), np.float32))
    return str(file)


def build_cell(config: RunConfig, features: FeatureSpec, segments: int = 10) -> Cell:
    """Build the task and the model of a run on data of these features and this length."""
    torch.manual_seed(0)
    task = build_task(config)
    spec = DataSpec(
        name="random",
        task=config.task,
        classes=list(task.classes),
        features=features,
        labels={},
        label_dtypes={},
        segments=segments,
    )
    return Cell(config, task, build_model(config, task, spec))


def build(task: str, encoder: str, decoder: str, **decoder_options: Any) -> AVModel:
    """Return the model of a cell, ready for inference."""
    return cell(task, encoder, decoder, decoder_options=decoder_options).model.eval()


def inputs(
    task: str,
    clips: int = 2,
    segments: int = 10,
    seed: int = 0,
    features: FeatureSpec | None = None,
):
    """Return random audio, visual and motion (avvp) features."""
    f = features or FEATURES[task]
    rng = torch.Generator().manual_seed(seed)
    audio = torch.randn(clips, segments, f.audio_dim, generator=rng)
    visual = torch.randn(clips, segments, *(f.map_size or ()), f.visual_dim, generator=rng)
    motion = (
        None if f.motion_dim is None else torch.randn(clips, segments, f.motion_dim, generator=rng)
    )
    return audio, visual, motion


def random_batch(
    task: str,
    clips: int = 4,
    segments: int = 10,
    seed: int = 0,
    features: FeatureSpec | None = None,
) -> Batch:
    """Return random features with random events; AVEL's second clip is all background."""
    audio, visual, motion = inputs(task, clips, segments, seed, features)
    rng = torch.Generator().manual_seed(seed + 1)
    labels = (
        _avvp_labels(clips, segments, rng)
        if task == "avvp"
        else _avel_labels(task, clips, segments, rng)
    )
    ids = [f"clip{i}" for i in range(clips)]
    return Batch(
        audio=audio,
        visual=visual,
        motion=motion,
        row=torch.arange(clips),
        clip_id=ids,
        labels=labels,
    )


def _avvp_labels(clips: int, segments: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Two classes a clip; the first is heard and seen, the second only heard or only seen."""
    shape = (clips, segments, len(adapter_of_task("avvp").classes))
    maps = {
        k: torch.zeros(shape, dtype=torch.uint8)
        for k in ("dense_audio", "dense_visual", "pseudo_audio", "pseudo_visual")
    }
    for clip in range(clips):
        first, second = torch.randperm(shape[-1], generator=rng)[:2].tolist()
        for kind in ("dense", "pseudo"):
            for stream in ("audio", "visual"):
                maps[f"{kind}_{stream}"][clip, _interval(segments, rng), first] = 1
            maps[f"{kind}_{('audio', 'visual')[clip % 2]}"][
                clip, _interval(segments, rng), second
            ] = 1
    weak = torch.maximum(maps["dense_audio"], maps["dense_visual"]).amax(dim=1)
    return {**maps, "weak": weak}


def _avel_labels(
    task: str, clips: int, segments: int, rng: torch.Generator
) -> dict[str, torch.Tensor]:
    """One class a clip, of those that training has."""
    made = make_task(task)
    known = [n for n, name in enumerate(made.classes[:-1]) if name not in made.unseen]
    background = len(made.classes) - 1
    segment = torch.full((clips, segments), background)
    category = torch.zeros(clips, dtype=torch.long)
    for clip in range(clips):
        category[clip] = known[int(torch.randint(len(known), (1,), generator=rng))]
        if clip != 1:
            segment[clip, _interval(segments, rng)] = category[clip]
    # Background has the largest index.
    labels = {"segment": segment, "video": segment.amin(dim=1)}
    return labels | {"category": category} if made.unseen else labels


def _interval(segments: int, rng: torch.Generator) -> slice:
    onset = int(torch.randint(segments, (1,), generator=rng))
    return slice(onset, onset + 1 + int(torch.randint(segments - onset, (1,), generator=rng)))
