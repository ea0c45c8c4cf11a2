"""The teachers CLIP and CLAP: text features and the scale of their logits, from a file or a model.

Running a model needs `transformers` (extra "text").

Source: CLIP (ICML 2021); CLAP (ICASSP 2023), the model with feature fusion.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save
from torch import Tensor

from avplatform.base.npy import read_input
from avplatform.features.sampling import SAMPLE_RATE
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.models.paths import expanded

CLIP_MODEL = "openai/clip-vit-large-patch14"
CLAP_MODEL = "laion/clap-htsat-fused"
CLIP_PINNED = f"{CLIP_MODEL}@32bd64288804d66eefd0ccbe215aa642df71cc41"
CLAP_PINNED = f"{CLAP_MODEL}@365dea6ef167def6676140ed93bbc43f84dabb28"
"""Commits of these models that hold their weights as safetensors."""
WANTED = ("*.json", "*.txt", "*.safetensors")
"""Files of these models that are read."""
NO_SAFETENSORS = (
    "no file named model.safetensors",
    "not appear to have a file named model.safetensors",
)
"""Parts of the errors that transformers raises for a folder and for a hub id."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(kw_only=True)
class TextFeatures:
    """The text features of the prompts, and the factor of the cosine in the logits.

    Shape: vectors [C, D], one per class.
    """

    vectors: np.ndarray
    scale: float
    prompts: tuple[str, ...] | None = None
    model: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UsageError(
                f"the scale of the logits is {self.scale}; it must be positive (CLIP: 100)"
            )

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits, the cosine times the scale, in float64: [T, D] -> [T, C]."""
        return self.scale * _unit(features) @ _unit(self.vectors).T

    def describe(self) -> dict[str, Any]:
        """Return a digest of the vectors, the scale, and the model and prompts if known."""
        content = np.ascontiguousarray(self.vectors, dtype="<f4").tobytes()
        digest = hashlib.sha256(content).hexdigest()
        known = None if self.prompts is None else list(self.prompts)
        made_by = {"model": self.model, "revision": self.revision}
        return {**made_by, "text_features_sha256": digest, "scale": self.scale, "prompts": known}

    def write(self, file: Path) -> None:
        """Write a safetensors file that `read` understands."""
        tensors = {
            "text": np.ascontiguousarray(self.vectors, dtype=np.float32),
            "logit_scale": np.array([math.log(self.scale)]),
        }
        metadata = None
        if self.prompts is not None:
            metadata = {"prompts": json.dumps(self.prompts), "model": self.model or ""}
        file.write_bytes(save(tensors, metadata=metadata))

    @classmethod
    def read(
        cls, file: str | Path, *, scale: float | None, prompts: tuple[str, ...]
    ) -> TextFeatures:
        """Read text features from a file.

        Args:
            file: a .npy [C, D], or a .safetensors with "text" [C, D] and optionally "logit_scale",
                the logarithm of the scale.
            scale: the scale, instead of the one in the file.
            prompts: the prompts of the classes; a file that names its prompts must have the same.

        Raises:
            DataError: the file is missing, unreadable or wrong.
            UsageError: no scale is known, or the file was made from other prompts.
        """
        path = expanded(file)
        if not path.is_file():
            raise DataError(f"no file of text features {path}")
        known: tuple[str, ...] | None = None
        if path.suffix == ".npy":
            vectors = read_input(path, (len(prompts), None), finite=True)
        else:
            vectors, stored, known = _read_safetensors(path, len(prompts))
            scale = stored if scale is None else scale
        if known is not None and known != prompts:
            differing = ((a, b) for a, b in zip(known, prompts, strict=False) if a != b)
            theirs, ours = next(differing, ("", ""))
            raise UsageError(
                f"{path} was made from other prompts ({theirs!r}; here {ours!r}); see --spelling"
            )
        if scale is None:
            raise UsageError(
                f"{path} does not say the scale of the logits; give --visual-scale (CLIP: 100) or "
                "--audio-scale"
            )
        if not vectors.any(axis=1).all():
            prompt = prompts[int((~vectors.any(axis=1)).argmax())]
            raise DataError(f"{path}: the text feature of '{prompt}' is all zeros")
        return cls(vectors=np.asarray(vectors, dtype=np.float32), scale=float(scale), prompts=known)


class Teacher(ABC):
    """A model of `transformers` that embeds texts and segments in one space.

    Args:
        name: hub id, with @REVISION for a revision, or local folder.
        device: where to run it.

    Raises:
        UsageError: transformers is not installed.
        DataError: the model does not exist, is of another type, lacks weights, or its weights are
            not in safetensors.
    """

    model_type: ClassVar[str]
    model_class: ClassVar[str]
    reader_class: ClassVar[str]
    scale_name: ClassVar[str]
    input_size: int = 0

    def __init__(self, name: str, *, device: torch.device | str = "cpu") -> None:
        transformers = _transformers()
        self.name, self.device = name, torch.device(device)
        place, revision = _located(name)
        pinned = {} if revision is None else {"revision": revision}
        try:
            found = transformers.AutoConfig.from_pretrained(place, **pinned).model_type
            if found != self.model_type:
                raise DataError(
                    f"{name} is a model of type '{found}'; give one of type '{self.model_type}'"
                )
            loader = getattr(transformers, self.model_class)
            model, info = loader.from_pretrained(
                place,
                **pinned,
                output_loading_info=True,
                dtype=torch.float32,
                use_safetensors=True,  # the other format is pickle, which can run any code
            )
            reader = getattr(transformers, self.reader_class)
            self.reader = reader.from_pretrained(place, **pinned)
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            if isinstance(error, DataError):
                raise
            if any(text in str(error) for text in NO_SAFETENSORS):
                raise DataError(
                    f"{name} has no model.safetensors, and weights in pickle (pytorch_model.bin) "
                    "are not read; give a model that was saved as safetensors"
                ) from None
            raise DataError(
                f"cannot load {name}: {_first_line(error)}; give a hub id or a folder of weights"
                f"{how_to_fetch(name)}"
            ) from None
        missing = sorted(set(info["missing_keys"]) & {key for key, _ in model.named_parameters()})
        if missing:
            raise DataError(
                f"{name} lacks {counted(len(missing), 'weight')}, {missing[0]} among them; give a "
                "complete model"
            )
        self.model = model.to(self.device).eval()

    @property
    def scale(self) -> float:
        """The factor of the cosine in the logits, about 100."""
        return float(getattr(self.model, self.scale_name).detach().double().exp())

    @abstractmethod
    def segment_features(self, content: np.ndarray) -> np.ndarray:
        """Return one vector per segment: [T, ...] -> [T, D]."""

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> TextFeatures:
        """Return the text features of prompts."""
        tokens = self.reader(text=list(texts), padding=True, return_tensors="pt")
        tokens = {name: value.to(self.device) for name, value in tokens.items()}
        return TextFeatures(
            vectors=_pooled(self.model.get_text_features(**tokens)),
            scale=self.scale,
            prompts=tuple(texts),
            model=self.name,
            revision=getattr(self.model.config, "_commit_hash", None),
        )


class CLIPTeacher(Teacher):
    """CLIP, which compares frames with image prompts."""

    model_type, model_class = "clip", "CLIPModel"
    reader_class, scale_name = "AutoTokenizer", "logit_scale"

    def __init__(self, name: str = CLIP_MODEL, *, device: torch.device | str = "cpu") -> None:
        super().__init__(name, device=device)
        self.input_size = int(self.model.config.vision_config.image_size)

    @torch.inference_mode()
    def segment_features(self, content: np.ndarray) -> np.ndarray:
        """Return image features of frames in [0, 1]: [T, 3, S, S] -> [T, D]."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        pixels = (torch.from_numpy(content) - mean) / std
        return _pooled(self.model.get_image_features(pixel_values=pixels.to(self.device)))


class CLAPTeacher(Teacher):
    """CLAP, which compares seconds of sound with audio prompts.

    Departs: if no segment is longer than CLAP's ten seconds, its reference code treats one, drawn
    at random, as if it were longer. We treat none so, which makes the labels reproducible.
    """

    model_type, model_class = "clap", "ClapModel"
    reader_class, scale_name = "ClapProcessor", "logit_scale_a"

    def __init__(self, name: str = CLAP_MODEL, *, device: torch.device | str = "cpu") -> None:
        super().__init__(name, device=device)
        rate = self.reader.feature_extractor.sampling_rate
        if rate != SAMPLE_RATE:
            raise DataError(f"{name} reads sound at {rate} Hz; give a CLAP of {SAMPLE_RATE} Hz")

    @torch.inference_mode()
    def segment_features(self, content: np.ndarray) -> np.ndarray:
        """Return audio features of waveforms at 48 kHz: [T, samples] -> [T, D]."""
        state = np.random.get_state()  # the processor draws a number, which is not used
        inputs = self.reader(audio=list(content), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        np.random.set_state(state)
        longer = torch.zeros(len(content), 1, dtype=torch.bool, device=self.device)
        features = inputs["input_features"].float().to(self.device)
        return _pooled(self.model.get_audio_features(input_features=features, is_longer=longer))


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise UsageError(
            "frames, waveforms and prompts need transformers: pip install 'avplatform[text]'"
        ) from None
    return transformers


def _located(name: str) -> tuple[str, str | None]:
    """Return a folder or hub id, and the revision behind its @."""
    place, _, revision = name.partition("@")
    return (name, None) if Path(name).is_dir() else (place, revision or None)


def how_to_fetch(name: str) -> str:
    """Return the end of a message: the command that fetches a hub id's weights, if it is one."""
    found = hub_id(name)
    if found is None:
        return ""
    command = fetch_command(*found, WANTED)
    return f"; where there is a network, `{command}` fetches {found[0]}"


def hub_id(name: str) -> tuple[str, str | None] | None:
    """Return the repository and the revision of a hub id; None for a folder."""
    place, revision = _located(name)
    if Path(place).is_dir() or place.startswith((".", "/", "~")) or place.count("/") != 1:
        return None
    return place, revision


def fetch_command(repository: str, revision: str | None, patterns: Sequence[str]) -> str:
    """Return the command that fetches some files of a repository on the Hub."""
    at = f" --revision {revision}" if revision else ""
    wanted = "".join(f" --include '{pattern}'" for pattern in patterns)
    return f"hf download {repository}{at}{wanted}"


def _pooled(output: Tensor | Any) -> np.ndarray:
    """Return the projected features, which are a tensor or the pooled part of an output.

    Which of them depends on the version of transformers.
    """
    vectors = output if isinstance(output, Tensor) else output.pooler_output
    return vectors.float().cpu().numpy()


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _read_safetensors(
    path: Path, count: int
) -> tuple[np.ndarray, float | None, tuple[str, ...] | None]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            if "text" not in names:
                raise DataError(f"{path} has no tensor 'text' (it has: {', '.join(names)})")
            vectors = file.get_tensor("text")
            scale = None
            if "logit_scale" in names:
                scale = math.exp(float(np.ravel(file.get_tensor("logit_scale"))[0]))
            stored = json.loads((file.metadata() or {}).get("prompts", "null"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise DataError(
            f"cannot read {path}: {_first_line(error)}; give .npy or .safetensors"
        ) from None
    if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
        raise DataError(
            f"{path}: 'text' has shape {vectors.shape}; it must be finite numbers ({count}, width)"
        )
    return vectors, scale, None if stored is None else tuple(map(str, stored))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
