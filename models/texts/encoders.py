"""Label embeddings by pretrained text encoders, read through `transformers`, which is optional.

Each encoder is a folder of config.json, tokenizer files and safetensors weights: a local folder,
one inside an installed package, or one of the Hub.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from torch import Tensor

from avplatform.models.errors import AVError, DataError, UsageError, one_line
from avplatform.models.paths import expanded

BATCH = 64
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
POOLINGS = ("cls", "mean")
FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "1_Pooling/config.json")

FAILURES = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,
    SafetensorError,
)
"""The errors that transformers raises for folders that it cannot use."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder of a text encoder, its name, and its revision on the Hub."""

    path: Path
    name: str
    revision: str | None = None

    @property
    def files(self) -> list[Path]:
        """The files that determine what the encoder computes."""
        patterns = ("*.json", "*.txt", "*.model", "*.safetensors")
        return sorted(
            {file for pattern in patterns for file in self.path.glob(pattern) if file.is_file()}
        )


def find_folder(name: str) -> ModelFolder:
    """Return the folder of a text encoder.

    Args:
        name: a folder, an installed package that is one or holds one as `model`, or a Hub id, with
            NAME@REVISION for a revision.

    Raises:
        DataError: there is no such encoder, or the Hub cannot be reached.
    """
    own = expanded(name)
    for folder in (own, *package_folders(name)):
        for path in (folder, folder / "model"):
            if (path / "config.json").is_file():
                return ModelFolder(path, folder.resolve().name if folder == own else name)
    if own.is_dir() or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise DataError(
            f"'{name}' is not a folder with a config.json; "
            "give the folder of a text encoder, a package or a Hub id"
        )
    repo, _, revision = name.partition("@")
    offline = os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE")
    try:
        place = snapshot_download(
            repo,
            revision=revision or None,
            allow_patterns=list(FILES),
            ignore_patterns=["*/model*"],
            local_files_only=offline,
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        where = "the Hub's cache (HF_HUB_OFFLINE is set)" if offline else "the Hub"
        reason = one_line(error, 160)
        raise DataError(
            f"no text encoder '{name}': no folder, no installed package, and not in {where} "
            f"({reason})"
        ) from None
    return ModelFolder(Path(place), repo, Path(place).name)


def package_folders(name: str) -> list[Path]:
    """Return the folder of a package by its import or install name; empty if not installed."""
    module = name.replace("-", "_")
    try:
        spec = importlib.util.find_spec(module) if module.isidentifier() else None
    except ValueError:
        spec = None
    return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []


def check_transformers() -> dict[str, str]:
    """Return the versions of the libraries that text encoders need.

    Raises:
        UsageError: `transformers` is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UsageError(
            'text encoders need the package transformers: pip install "avplatform[text]"'
        )
    return {
        name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers")
    }


def model_type(folder: ModelFolder) -> str:
    """Return the name of the architecture that config.json states, such as "bert"."""
    file = folder.path / "config.json"
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} names no model_type ({error}); it is not a transformers model"
        ) from None


def declared_pooling(folder: ModelFolder) -> str:
    """Return the pooling that 1_Pooling/config.json of a sentence encoder states, or "mean"."""
    file = folder.path / "1_Pooling" / "config.json"
    if not file.is_file():
        return "mean"
    try:
        modes = json.loads(file.read_text(encoding="utf-8"))
        on = sorted(name for name, value in modes.items() if value is True and "mode" in name)
        on = [name.removeprefix("pooling_mode_") for name in on]
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    known = {"cls_token": "cls", "mean_tokens": "mean"}
    if len(on) != 1 or on[0] not in known:
        raise UsageError(
            f"{folder.name} pools by {' and '.join(on) or 'nothing known'}; "
            "give --labels.pooling mean or cls"
        )
    return known[on[0]]


def encode_pooled(folder: ModelFolder, texts: Sequence[str], *, pooling: str) -> Tensor:
    """Return the pooled last hidden states of an encoder.

    Pooling "cls" takes the first token, "mean" averages all tokens but the padding.

    Departs: sentence encoders that end with a normalisation are read before it. The directions are
    the same, and from vectors of this length a linear map learns as fast as from GloVe's.

    Shape: C texts -> [C, E].
    """

    def pool(model: Any, tokens: dict[str, Tensor]) -> Tensor:
        hidden = model(**tokens).last_hidden_state  # (C, L, E)
        if pooling == "cls":
            return hidden[:, 0]
        weight = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1)

    return _encode(folder, texts, "AutoModel", pool, unused=("pooler",))


def encode_projected(folder: ModelFolder, texts: Sequence[str], *, kind: str) -> Tensor:
    """Return the projected text features of CLIP or CLAP before they are normalised.

    Args:
        folder: the folder of the model.
        texts: the texts.
        kind: "CLIP" or "Clap", as transformers names its classes.

    Shape: C texts -> [C, E]; images or audio are projected to the same width E.
    """
    return _encode(
        folder,
        texts,
        f"{kind}TextModelWithProjection",
        lambda model, tokens: model(**tokens).text_embeds,
    )


def whole_words(folder: ModelFolder) -> list[str]:
    """Return the words that the tokenizer of an encoder reads as one token, in its order.

    Raises:
        DataError: the tokenizer cannot be read.
    """
    check_transformers()
    transformers: Any = importlib.import_module("transformers")
    with _quiet(transformers):
        try:
            tokenizer = _tokenizer(transformers, folder)
            known = tokenizer.get_vocab()
            texts = [
                tokenizer.convert_tokens_to_string([token]).strip()
                for token in sorted(known, key=lambda token: known[token])
            ]
            words = [word for word in dict.fromkeys(texts) if word.isalpha()]
            tokens = tokenizer(words, add_special_tokens=False)["input_ids"]
        except FAILURES as error:
            if isinstance(error, AVError):
                raise
            reason = one_line(error)
            raise DataError(f"{folder.path} has no words that can be read ({reason})") from None
    return [word for word, ids in zip(words, tokens, strict=True) if len(ids) == 1]


def _encode(
    folder: ModelFolder, texts: Sequence[str], kind: str, read: Any, unused: tuple[str, ...] = ()
) -> Tensor:
    check_transformers()
    for text in texts:
        if not text.strip():
            raise UsageError("a label text is empty; give each class at least one word")
    transformers: Any = importlib.import_module("transformers")
    # transformers draws weights before it loads them; this must not change the random state from
    # which a run draws its own weights.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), _quiet(transformers):
        try:
            tokenizer, model = _load(transformers, folder, kind, unused)
            rows = []
            for start in range(0, len(texts), BATCH):
                tokens = _tokenise(tokenizer, model, list(texts[start : start + BATCH]), folder)
                rows.append(read(model, tokens).float())
        except FAILURES as error:
            if isinstance(error, AVError):
                raise
            reason = one_line(error)
            raise DataError(f"{folder.path} cannot be used as a text encoder ({reason})") from None
    values = torch.cat(rows).clone()
    if not values.isfinite().all():
        raise DataError(
            f"the text encoder {folder.name} gives NaN or infinite numbers; its weights are damaged"
        )
    return values


def _tokenizer(transformers: Any, folder: ModelFolder) -> Any:
    if not any(file for pattern in VOCABULARIES for file in folder.path.glob(pattern)):
        raise DataError(
            f"{folder.path} has no tokenizer ({', '.join(VOCABULARIES)}); "
            "copy it beside the weights"
        )
    return transformers.AutoTokenizer.from_pretrained(folder.path, local_files_only=True)


def _load(
    transformers: Any, folder: ModelFolder, kind: str, unused: tuple[str, ...]
) -> tuple[Any, Any]:
    tokenizer = _tokenizer(transformers, folder)
    config = transformers.AutoConfig.from_pretrained(folder.path, local_files_only=True)
    if kind != "AutoModel" and hasattr(config, "text_config"):
        # The value of the text tower is not always right.
        config.text_config.projection_dim = config.projection_dim
        config = config.text_config
    model, found = getattr(transformers, kind).from_pretrained(
        folder.path,
        config=config,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(unused or ("\0",)))
    if missing:
        raise DataError(
            f"{folder.path} lacks weights of a text encoder: {', '.join(missing[:4])} "
            f"({len(missing)} in all)"
        )
    return tokenizer, model.eval()


def _tokenise(
    tokenizer: Any, model: Any, texts: list[str], folder: ModelFolder
) -> dict[str, Tensor]:
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # the attention mask hides it
    tokens = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    limit = min(
        tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 10**9
    )
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for text, ids, mask in zip(
        texts, tokens["input_ids"].tolist(), tokens["attention_mask"].tolist(), strict=True
    ):
        words = [i for i, kept in zip(ids, mask, strict=True) if kept and i not in special]
        if sum(mask) > limit:
            raise UsageError(
                f"the label text '{text[:40]}...' has {sum(mask)} tokens; "
                f"{folder.name} reads {limit}"
            )
        if words and all(i == tokenizer.unk_token_id for i in words):
            raise DataError(
                f"{folder.name} knows no part of the label text '{text}'; use other words"
            )
    return {name: tokens[name] for name in ("input_ids", "attention_mask")}


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Hide progress bars and reports of transformers; what matters in them is an error here."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
