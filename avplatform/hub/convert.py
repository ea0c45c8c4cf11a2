"""Conversion of published checkpoints to model folders with the classes and options of a task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from avplatform.config.presets import preset_options, presets_of_checkpoints
from avplatform.data.adapters.registry import make_task
from avplatform.hub.cards import render_converted_card
from avplatform.labels.cache import label_embeddings as label_embeddings_of
from avplatform.models.av_model import AVModel
from avplatform.models.checkpoint.file import read_checkpoint
from avplatform.models.config import config_from_dict, options_of
from avplatform.models.errors import AVError, DataError, UsageError, counted, unknown_name
from avplatform.models.files import file_sha256, write_atomic
from avplatform.models.official import OFFICIAL, Labels, open_reader
from avplatform.models.official.reader import Reader, clean
from avplatform.models.paths import expanded
from avplatform.models.texts.files import LabelEmbeddings
from avplatform.tasks.registry import TASKS

PRESETS: dict[str, dict[str, str]] = presets_of_checkpoints()
"""By published model and supervision, the preset with the losses and decisions of that model."""

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass
class Converted:
    """The result of a conversion: the saved model, and lines that tell a person what was done."""

    model: AVModel
    lines: list[str]


def convert(
    file: str | Path,
    name: str,
    out: str | Path,
    *,
    dtype: Literal["float32", "float64"] = "float32",
    label_embeddings: str | Path | None = None,
    **options: Any,
) -> Converted:
    """Read a published checkpoint, without running any code in it, and write a model folder.

    Args:
        file: the checkpoint, in torch's zip format or the one before torch 1.6, or in safetensors.
        name: the published model, one of `avplatform.models.official.OFFICIAL`.
        out: folder to write, which must not exist or be empty.
        dtype: the stored precision.
        label_embeddings: a file or another source of the label embeddings, for LEAP.
        options: what shapes do not tell, as in the command; None where not given.

    Raises:
        UsageError: the name is unknown, an option does not apply to the model, or the folder is not
            empty.
        DataError: the file cannot be read, or is not a checkpoint of this model.
    """
    if name not in OFFICIAL:
        raise unknown_name("published model", name, OFFICIAL)
    file, out = expanded(file), expanded(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} exists and is not empty; give a new folder")
    # The options are checked before the embeddings are read.
    given = {**options, "label_embeddings": label_embeddings}
    open_reader(name, **given)
    takes_labels = "label_embeddings" in OFFICIAL[name].takes
    embeddings = _published_embeddings(name, label_embeddings) if takes_labels else None
    if embeddings is not None:
        given["label_embeddings"] = embeddings.values
    reader = open_reader(name, **given)
    checkpoint = read_checkpoint(file)
    tensors = clean(checkpoint.tensors)
    try:
        reader.look(tensors)
        labels = published_labels(name, weak=_weak(reader))
        model = reader.read(tensors, labels)
    except AVError as error:
        raise type(error)(f"{file}: {error}") from None
    assert isinstance(model, AVModel)
    if embeddings is not None:
        model.config.label_source = embeddings.source
    unused = len(reader.unused(tensors))
    lines = [
        f"read {file}: {checkpoint.container}, {len(tensors)} tensors"
        + (f", {unused} of which {reader.title} never reads" if unused else "")
    ]
    if checkpoint.ignored:
        lines.append(f"ignored beside the weights: {', '.join(checkpoint.ignored[:20])}")
    lines += [str(setting) for setting in reader.settings.values()]
    lines.append(_cast(model, DTYPES[dtype]))
    card = render_converted_card(
        model.config.to_dict(),
        published=reader.title,
        file=file.name,
        sha256=file_sha256(file),
        container=checkpoint.container,
        settings=[(s.name, s.shown, s.origin, s.why) for s in reader.settings.values()],
        label_embeddings=None if label_embeddings is None else Path(label_embeddings).name,
        precision=lines[-1],
        parameters=f"{model.num_parameters:,}",
    )
    write_folder(model, card, out)
    config = model.config
    cell = f"{config.encoder._type} + {config.decoder._type} for {config.task}"
    lines.append(
        f"wrote {out}: {cell}, {model.num_parameters:,} parameters, "
        f"{counted(len(config.classes), 'class')}"
    )
    return Converted(model, lines)


def published_labels(name: str, *, weak: bool = False) -> Labels:
    """Return the classes, label texts and task options of a published model, quirks enabled."""
    presets = PRESETS[name]
    options = preset_options(presets["weak"] if weak else next(iter(presets.values())))
    kind = TASKS[options["task"]]
    told = {**options.get("task_config", {}), "supervision": options["supervision"]}
    config = config_from_dict(kind.Config, told)
    task = make_task(kind.name, config)
    classes, texts = task.model_classes(options["decoder"], options["encoder"])
    return Labels(
        task=kind.name, classes=classes, label_texts=texts, task_config=options_of(config)
    )


def write_folder(model: AVModel, card: str, out: Path) -> None:
    """Write config.json, model.safetensors and README.md, all of them or none.

    Raises:
        DataError: the folder cannot be written.
    """

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "README.md").write_text(card, encoding="utf-8")
        model.save_pretrained(folder)

    try:
        write_atomic(out, write)
    except OSError as error:
        raise DataError(
            f"cannot write {out}: {error.strerror or error}; give another --out"
        ) from None


def _weak(reader: Reader) -> bool:
    return bool(reader.settings["weak"].value) if "weak" in reader.settings else False


def _published_embeddings(name: str, source: str | Path | None) -> LabelEmbeddings:
    if source is None:
        raise UsageError(
            "the checkpoint does not hold its label embeddings; give them with "
            "--label-embeddings FILE (.npy, .safetensors, .pt, or a GloVe text file)"
        )
    return label_embeddings_of(published_labels(name).label_texts, str(source))


def _cast(model: nn.Module, dtype: torch.dtype) -> str:
    """Cast the model and return a line about the change of its values.

    Raises:
        DataError: a value is too large for the precision.
    """
    found = next(model.parameters()).dtype
    wide, narrow = str(found).removeprefix("torch."), str(dtype).removeprefix("torch.")
    if torch.promote_types(found, dtype) == dtype:
        model.to(dtype)
        return f"stored in {narrow}; no value changed"
    largest = max(
        float((value.detach() - value.detach().to(dtype)).abs().max())
        for value in model.parameters()
    )
    if largest == float("inf"):
        raise DataError(
            f"the file holds values that are too large for {narrow}; give --dtype {wide}"
        )
    model.to(dtype)
    if not largest:
        return f"stored in {narrow}, rounded from {wide}: no value changed"
    return (
        f"stored in {narrow}, rounded from {wide}: no value changed by more than {largest:.3g} "
        f"(--dtype {wide} keeps them)"
    )
