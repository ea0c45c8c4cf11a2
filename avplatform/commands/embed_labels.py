"""`avplatform embed-labels`: embed label texts, with their nearest neighbours as a check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from avplatform.base.files import give_json
from avplatform.commands.choices import DatasetTask
from avplatform.commands.flags import parse_flags
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.models.paths import expanded
from avplatform.models.texts.files import SUFFIXES, LabelEmbeddings

NEIGHBOURS = 3
SHOWN = 40


@dataclass(kw_only=True)
class EmbedLabelsOptions:
    """Embed label texts [C, E], show which texts lie near each other, and write the embeddings."""

    labels: Annotated[str, tyro.conf.Positional] = ""
    """label texts, separated by commas"""
    embeddings: str = "glove-50d"
    """source of the embeddings, as for `train --labels.embeddings`"""
    pooling: Literal["default", "cls", "mean"] = "default"
    """for bert, sentence and transformers: the first token, or the mean over tokens"""
    prompts: tuple[str, ...] = ()
    """sentences with {} for the text, whose embeddings are averaged"""
    texts: str | None = None
    """file with one text per line, for texts that contain commas"""
    task: DatasetTask | None = None
    """embed the class texts of this task"""
    out: str | None = None
    """file to write: .safetensors (texts in its metadata), or .npy (texts in a .json beside it)"""
    json: str | None = None
    """write the neighbours to this file; without a name: print them as JSON, and nothing else"""


def run(args: list[str], prog: str) -> int:
    """Embed the texts, print their neighbours, and write the file."""
    options = parse_flags(EmbedLabelsOptions, args, prog)
    texts = label_texts(options)
    out = None if options.out is None else _new_file(expanded(options.out))
    if options.embeddings.partition(":")[0] == "learned":
        raise UsageError(
            "learned label embeddings are made by training (`train --labels.embeddings learned`) "
            "and cannot embed texts; give another source, such as glove-50d"
        )
    from avplatform.labels.cache import label_embeddings
    from avplatform.models.texts.files import write_label_file

    pooling = None if options.pooling == "default" else options.pooling
    found = label_embeddings(texts, options.embeddings, pooling=pooling, prompts=options.prompts)
    near = nearest_texts(found)
    quiet = options.json == "-"
    if not quiet:
        print("\n".join(neighbours(near)))
    if options.json is not None:
        give_json(options.json, {"width": found.values.shape[1], "texts": near})
    if out is not None:
        write_label_file(out, found)
    if out is not None and not quiet:
        print(
            f"wrote {out}: {counted(len(texts), 'text')}, width {found.values.shape[1]}; "
            f"use it with --labels.embeddings {out}"
        )
    return 0


def label_texts(options: EmbedLabelsOptions) -> list[str]:
    """Return the texts that the options give, in their order.

    Raises:
        UsageError: there is no text, more than one list of texts, or a text that occurs twice.
        DataError: the file of texts cannot be read.
    """
    if sum(map(bool, (options.labels, options.texts, options.task))) != 1:
        raise UsageError(
            'give the label texts once: as "violin,dog", as --texts FILE, or as --task NAME'
        )
    if options.task:
        from avplatform.data.adapters.registry import make_task

        texts = list(make_task(options.task).class_texts())
    elif options.texts:
        try:
            lines = expanded(options.texts).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the file of texts {options.texts} cannot be read: {error}") from None
        texts = [line.strip() for line in lines if line.strip()]
    else:
        texts = [text.strip() for text in options.labels.split(",") if text.strip()]
    if not texts:
        raise UsageError("there is no label text; give at least one")
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise UsageError(
            f"the label text '{twice}' occurs twice; labels with the same text cannot be told apart"
        )
    return texts


def nearest_texts(embeddings: LabelEmbeddings) -> list[dict[str, Any]]:
    """Return for each text its embedding's norm, and the texts nearest to it by cosine."""
    unit = torch.nn.functional.normalize(embeddings.values.double(), dim=1)
    cosine = unit @ unit.T
    cosine.fill_diagonal_(-2)  # a text is not its own neighbour
    values, rows = cosine.topk(min(NEIGHBOURS, len(unit) - 1), dim=1)
    return [
        {
            "text": text,
            "norm": float(row.norm()),
            "nearest": [
                {"text": embeddings.texts[i], "similarity": v}
                for i, v in zip(at.tolist(), value.tolist(), strict=True)
            ],
        }
        for text, row, value, at in zip(
            embeddings.texts, embeddings.values, values, rows, strict=True
        )
    ]


def neighbours(near: list[dict[str, Any]]) -> list[str]:
    """Return one line per text of `nearest_texts`, at most forty."""
    width = max(len(one["text"]) for one in near[:SHOWN])
    lines = [f"{'text':<{width}}  norm   nearest (cosine)"]
    for one in near[:SHOWN]:
        names = ", ".join(f"{other['text']} {other['similarity']:.2f}" for other in one["nearest"])
        lines.append(f"{one['text']:<{width}}  {one['norm']:5.2f}  {names}".rstrip())
    if len(near) > SHOWN:
        lines.append(f"... and {len(near) - SHOWN} more")
    return lines


def _new_file(path: Path) -> Path:
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--out {path}: label embeddings are written as {' or '.join(SUFFIXES)}")
    for file in (path, path.with_suffix(".json")) if path.suffix == ".npy" else (path,):
        if file.exists():
            raise UsageError(f"--out {path}: {file} exists already; give another name")
    return path
