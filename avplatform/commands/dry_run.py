"""`avplatform train --dry-run`: describe a run without training."""

from __future__ import annotations

import torch

from avplatform.config.build import open_run, untimed_splits, with_learned_labels
from avplatform.config.run import RunConfig
from avplatform.config.values import as_yaml, to_dict
from avplatform.models.av_model import count_parameters
from avplatform.models.errors import counted
from avplatform.training.fit import (
    advice,
    fitted,
    length,
    steps_per_epoch,
    training_clips,
    unmeasured,
)
from avplatform.training.length import total_steps
from avplatform.training.start import start_model

FLOAT_BYTES = 4


def describe_run(config: RunConfig) -> str:
    """Return a run's resolved configuration, data, shapes, number of parameters and memory."""
    task, data, model = open_run(config)
    config, followed = fitted(config, task, data)
    config, learned = with_learned_labels(config, model)
    start = None if config.resume else start_model(model, config)
    # A dry run does not fetch streamed shards.
    split = data.split("validation" if config.streaming else "train")
    batch = split.batch(list(range(min(2, len(split)))))
    with torch.inference_mode():
        output = model.eval()(batch.audio, batch.visual, batch.motion)
    lines = [
        as_yaml(to_dict(config)).rstrip(),
        "",
        f"data: {data.name}{' (synthetic)' if data.synthetic else ''}",
    ]
    lines += [f"  {name}: {counted(data.rows(name), 'clip')}" for name in data.splits]
    clips = training_clips(task, data)
    steps = steps_per_epoch(config, clips)
    total = total_steps(config, steps)
    lines.append(
        f"training: {length(clips, steps, total)}, each of {counted(config.batch_size, 'clip')}"
    )
    lines += [line for line in (followed, learned) if line]
    if untimed := untimed_splits(data.spec, task):
        lines.append(unmeasured(untimed, task.whole_metric))
    lines += advice(config, clips, steps, total)
    lines.append("shapes (B clips):")
    streams = {"audio": batch.audio, "visual": batch.visual, "motion": batch.motion}
    present = {name: value for name, value in streams.items() if value is not None}
    lines += [f"  {name}: {_shape(value)}" for name, value in present.items()]
    encoding = output.encoding
    lines.append(f"  encoding: audio {_shape(encoding.audio)}, visual {_shape(encoding.visual)}")
    for level in ("segment", "video"):
        for stream in ("audio", "visual", "av"):
            prediction = getattr(getattr(output.parse, level), stream)
            if prediction is not None:
                lines.append(f"  {level} {stream}: {_shape(prediction.values)}")
    if start is not None:
        lines += start.lines()
    parameters, trained = sum(p.numel() for p in model.parameters()), count_parameters(model)
    frozen = f" ({parameters - trained:,} of them frozen)" if trained < parameters else ""
    clip = sum(value[0].numel() for value in present.values()) * FLOAT_BYTES
    lines += [
        f"parameters: {parameters:,}{frozen}",
        "memory: weights, gradients and optimiser "
        f"{(parameters + 3 * trained) * FLOAT_BYTES / 2**20:.0f} MiB; features of a batch "
        f"{clip * config.batch_size / 2**20:.0f} MiB; activations are not included",
    ]
    return "\n".join(lines)


def _shape(value: torch.Tensor) -> str:
    return "[" + ", ".join(["B", *map(str, value.shape[1:])]) + "]"
