"""`avplatform train --dry-run`: describe a run without training."""

from __future__ import annotations

import torch

from avplatform.config.build import open_run
from avplatform.config.run import RunConfig
from avplatform.config.values import as_yaml, to_dict
from avplatform.models.av_model import count_parameters
from avplatform.models.errors import counted

FLOAT_BYTES = 4


def describe_run(config: RunConfig) -> str:
    """Return a run's resolved configuration, data, shapes, number of parameters and memory."""
    _, data, model = open_run(config)
    split = data.split(
        "validation" if config.streaming else "train"
    )  # a dry run does not fetch streamed shards
    batch = split.batch(list(range(min(2, len(split)))))
    with torch.inference_mode():
        output = model.eval()(batch.audio, batch.visual, batch.motion)
    lines = [
        as_yaml(to_dict(config)).rstrip(),
        "",
        f"data: {data.name}{' (synthetic)' if data.synthetic else ''}",
    ]
    lines += [f"  {name}: {counted(data.rows(name), 'clip')}" for name in data.splits]
    lines.append("shapes (B clips):")
    for name, value in (("audio", batch.audio), ("visual", batch.visual), ("motion", batch.motion)):
        if value is not None:
            lines.append(f"  {name}: {_shape(value)}")
    lines.append(
        f"  encoding: audio {_shape(output.encoding.audio)}, "
        f"visual {_shape(output.encoding.visual)}"
    )
    for level in ("segment", "video"):
        for stream in ("audio", "visual", "av"):
            prediction = getattr(getattr(output.parse, level), stream)
            if prediction is not None:
                lines.append(f"  {level} {stream}: {_shape(prediction.values)}")
    parameters = count_parameters(model)
    clip = (
        sum(t[0].numel() for t in (batch.audio, batch.visual, batch.motion) if t is not None)
        * FLOAT_BYTES
    )
    lines += [
        f"parameters: {parameters:,}",
        "memory: weights, gradients and optimiser "
        f"{parameters * FLOAT_BYTES * 4 / 2**20:.0f} MiB; features of a batch "
        f"{clip * config.batch_size / 2**20:.0f} MiB; activations are not included",
    ]
    return "\n".join(lines)


def _shape(value: torch.Tensor) -> str:
    return "[" + ", ".join(["B", *map(str, value.shape[1:])]) + "]"
