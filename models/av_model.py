"""AVModel: stem, encoder and decoder in one module, saved to a folder or to the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import Output
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import AVError, DataError, UsageError, one_line
from avplatform.models.files import save_tensors, write_atomic
from avplatform.models.paths import expanded, may_be_hub_id, nearest_path
from avplatform.models.stem import FeatureStem, MapStem, VectorStem

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
BANK_FILE = "bank.safetensors"
"""What the model needs of its training clips to look for labels it never met, if it has it."""
Built = TypeVar("Built")


COMPANION = "companion."
"""The beginning of the names of a companion's tensors."""


class AVModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="avplatform",
    tags=["audio-visual", "event-localization"],
    license="apache-2.0",
):
    """An audio-visual event parser that is loaded from its own folder alone.

    A model in training may have a `companion`: a module that reads the same features and adds to
    the encoding what losses compare the model with (DHHN's guide networks). No prediction reads it,
    so it is not saved with the model; the checkpoints of a run hold it.

    Args:
        config: what to build; a dictionary that `AVModelConfig.to_dict` wrote is accepted too.
        label_embeddings: [C, E], for decoders that query with labels (LEAP). They are stored with
            the weights, and trained with them where the config sets `learned_labels`.

    Raises:
        UsageError: the label embeddings are missing or have the wrong shape.
    """

    folder: Path | None = None
    """The folder that the model was loaded from."""

    def __init__(
        self, config: AVModelConfig | dict[str, Any], label_embeddings: Tensor | None = None
    ) -> None:
        super().__init__()
        if not isinstance(config, AVModelConfig):
            config = AVModelConfig.from_dict(config)
        self.config, features = config, config.features
        self.companion: nn.Module | None = None
        encoder_type = ENCODERS[self.config.encoder._type]
        decoder_type = DECODERS[self.config.decoder._type]
        width: Any = getattr(self.config.encoder, "width", None)
        if encoder_type.wants == "vectors" and width is None:
            space: Any = getattr(self.config.encoder, "space", "auto")
            self.stem: nn.Module = FeatureStem(features=features, space=space)
            audio_dim, visual_dim, positions = self.stem.width, self.stem.width, 1
        elif encoder_type.wants == "vectors":
            self.stem = VectorStem(
                features=features,
                width=width,
                pool_first=not self.config.reference_order,
                map_reduction=getattr(self.config.encoder, "map_reduction", "mean"),
                activation=getattr(self.config.encoder, "stem_activation", "none"),
            )
            audio_dim, visual_dim, positions = width, width, 1
        else:
            self.stem = MapStem(features=features)
            audio_dim, visual_dim = features.audio_dim, self.stem.visual_dim
            positions = features.positions
        sizes: dict[str, int] = {}
        if encoder_type.sized:
            sizes = dict(num_classes=len(config.classes), segments=config.segments)
        self.encoder = encoder_type(
            config=self.config.encoder,
            audio_dim=audio_dim,
            visual_dim=visual_dim,
            positions=positions,
            **sizes,
        )
        self.decoder = decoder_type(
            config=self.config.decoder,
            width=self.encoder.width,
            num_classes=len(self.config.classes),
            label_dim=self.config.label_dim,
        )
        if (
            decoder_type.texts_as_wide(self.config.decoder)
            and self.config.label_dim != self.encoder.width
        ):
            raise UsageError(
                f"the decoder {decoder_type.name} compares segments with texts, so both need one "
                f"width: the encoder {encoder_type.name} gives vectors of {self.encoder.width} "
                f"numbers here, and the texts have {self.config.label_dim}; give texts of the "
                "encoder's width (--labels.embeddings), or set the width of the encoder"
            )
        if decoder_type.needs_labels:
            expected = [len(self.config.classes), self.config.label_dim]
            if label_embeddings is None or list(label_embeddings.shape) != expected:
                got = "none" if label_embeddings is None else list(label_embeddings.shape)
                raise UsageError(
                    f"the decoder {self.config.decoder._type} needs label embeddings {expected}, "
                    f"got {got}; make them with "
                    "avplatform.models.texts.glove.glove_embedder()(texts)"
                )
            own = label_embeddings.detach().clone().contiguous()
            if self.config.learned_labels:
                self.label_embeddings: Tensor | None = nn.Parameter(own)
            else:
                self.register_buffer("label_embeddings", own)
            self.decoder.read_labels(own)
        else:
            self.label_embeddings = None

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        motion: Tensor | None = None,
        label_embeddings: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> Output:
        """Parse clips; return the parse and the encoding.

        Features of another precision are cast to that of the weights.

        Shape: audio [B, T, Da]; visual [B, T, Dv], [B, T*k, Dv] or [B, T, H, W, Dv]; motion
        [B, T, Dm] or None; label_embeddings [C', E] to parse other labels than the model's own
        (LEAP); asked int64 [C'], positions of those of the model's own labels that are parsed, all
        if None (a model without label embeddings always parses its classes).

        Raises:
            DataError: a stream has the wrong shape.
            UsageError: other labels were given, but the model learned its label embeddings.
        """
        if label_embeddings is not None and self.config.learned_labels:
            raise UsageError(
                "the label embeddings of this model were learned with it, for its own classes "
                "only; to parse other labels, "
                "train with embeddings of texts (--labels.embeddings glove-50d)"
            )
        dtype = self.dtype
        motion = None if motion is None else motion.to(dtype)
        streams = self.stem(audio.to(dtype), visual.to(dtype), motion)
        encoding = self.encoder(*streams)
        if self.companion is not None and self.training:
            encoding.aux |= self.companion(audio.to(dtype), visual.to(dtype), motion)
        if self.encoder.wants == "vectors":
            encoding.aux |= dict(zip(("stem_audio", "stem_visual"), streams, strict=True))
        labels = self.label_embeddings if label_embeddings is None else label_embeddings.to(dtype)
        if asked is not None and labels is not None:
            labels = labels[asked.to(labels.device)]
        return Output(self.decoder(encoding, labels), encoding)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return any_tensor(self).dtype

    @property
    def num_parameters(self) -> int:
        """The number of trainable parameters, without those of a companion."""
        companion = 0 if self.companion is None else count_parameters(self.companion)
        return count_parameters(self) - companion

    @property
    def lr_scales(self) -> dict[str, float]:
        """Factors of the learning rate by the beginning of a parameter's name; the first counts."""
        scales = getattr(self.companion, "lr_scales", {})
        return {COMPANION + name: factor for name, factor in scales.items()}

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> AVModel:
        """Load a model from a folder or the Hub, in eval mode.

        Args:
            pretrained_model_name_or_path: a run folder, a folder that `save_pretrained` wrote, or a
                hub id such as owner/name.
            revision: branch, tag or commit of the repository.
            token: access token of the Hub; True for the one that is logged in.
            cache_dir: the Hub client's cache folder.
            force_download: download the files even if they are in the cache.
            local_files_only: never ask the Hub; use the files in the cache.

        Raises:
            DataError: there is no such folder or repository, or its files are missing, damaged, or
                do not fit each other.
        """
        options: dict[str, Any] = dict(
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        place = str(pretrained_model_name_or_path)
        if expanded(place).is_dir():
            place = str(model_of_run(expanded(place)))
        config_path = _file(place, CONFIG_FILE, options)
        weights_path = _file(place, WEIGHTS_FILE, options)
        config = _read_config(config_path)
        try:
            tensors = load_file(weights_path)
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"{weights_path} is not a whole safetensors file ({error}); fetch or save it again"
            ) from None
        labels = tensors.get("label_embeddings")
        if DECODERS[config.decoder._type].needs_labels and labels is None:
            raise DataError(
                f"{weights_path} has no label_embeddings, which the decoder needs; "
                "save the model again"
            )
        try:
            # Compare shapes before any memory is taken: a wrong config may describe a huge model.
            if (shapes := without_memory(lambda: cls(config, label_embeddings=labels))) is not None:
                _check_fit(shapes, tensors, weights_path)
            model = cls(config, label_embeddings=labels)
            if shapes is None:
                _check_fit(model, tensors, weights_path)
        except UsageError as error:
            raise DataError(f"{config_path} and {weights_path} do not fit: {error}") from None
        if any(value.dtype == torch.float64 for value in tensors.values()):
            model = model.double()
        model.load_state_dict(tensors)
        model.folder = weights_path.parent
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write the model to a folder; see `PyTorchModelHubMixin.save_pretrained`."""
        return super().save_pretrained(expanded(save_directory), **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write config.json and model.safetensors, each one atomically."""
        folder = Path(save_directory)
        tensors = {k: v for k, v in self.state_dict().items() if not k.startswith(COMPANION)}
        text = json.dumps(self.config.to_dict(), indent=2, sort_keys=True, ensure_ascii=False)
        write_atomic(
            folder / WEIGHTS_FILE, lambda path: save_tensors(tensors, path, {"format": "pt"})
        )
        write_atomic(folder / CONFIG_FILE, text + "\n")
        bank = None if self.folder is None else self.folder / BANK_FILE
        if bank is not None and bank.is_file() and not (folder / BANK_FILE).exists():
            write_atomic(folder / BANK_FILE, bank.read_bytes())

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        """Return a short card; `avplatform push` writes a full one with results."""
        from huggingface_hub import ModelCard

        config = self.config
        text = (
            "---\nlibrary_name: avplatform\nlicense: apache-2.0\ntags:\n"
            "- audio-visual\n- event-localization\n---\n\n"
            f"# {config.encoder._type} + {config.decoder._type} ({config.task})\n\n"
            f"An audio-visual event parser with {len(config.classes)} classes and "
            f"{self.num_parameters:,} parameters. "
            "It was saved without an evaluation, so this card states none.\n\n"
            "```python\nfrom avplatform import AVModel\n\n"
            'model = AVModel.from_pretrained("<this repository>")\n```\n'
        )
        return ModelCard(text)


def any_tensor(model: nn.Module) -> Tensor:
    """Return a parameter of a model, or a buffer where it has none (such as label embeddings)."""
    return next(chain(model.parameters(), model.buffers()))


def without_memory(build: Callable[[], Built]) -> Built | None:
    """Return what `build` makes on torch's meta device, where tensors take no memory.

    Return None where that is impossible, for example with a third-party module that reads the
    values of its tensors while it is built: meta tensors have no values.
    """
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        if "meta" not in str(error):
            raise
        return None


def model_of_run(folder: Path) -> Path:
    """Return the model folder of a run folder; any other folder is returned as it is.

    Raises:
        DataError: the run has no model yet.
    """
    if (folder / "model").is_dir():
        return folder / "model"
    if (folder / "config.yaml").is_file():
        raise DataError(
            f"the run {folder} has no model/ yet: it did not finish; go on with --resume {folder}"
        )
    return folder


def _file(place: str, name: str, options: dict[str, Any]) -> Path:
    """Return a file of a local folder, or of a hub repository."""
    if expanded(place).is_dir():
        path = expanded(place) / name
        if not path.is_file():
            raise DataError(
                f"the model folder {place} has no {name}; "
                "give a folder that a run or save_pretrained wrote"
            )
        return path
    if not may_be_hub_id(place):
        raise DataError(
            f"no model folder {place}{nearest_path(place)}; give an existing folder, or a hub id "
            "such as owner/name (whose owner is not the name of a folder here)"
        )
    try:
        return Path(hf_hub_download(place, name, **options))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = one_line(error)
        raise DataError(
            f"{name} of '{place}' cannot be fetched from the Hub, and there is no such folder "
            f"({reason}); give an existing folder or a hub id"
        ) from None


def _read_config(path: Path) -> AVModelConfig:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or not all(
            isinstance(data.get(k), dict) for k in ("encoder", "decoder", "features")
        ):
            raise DataError(
                "it lacks an encoder, a decoder or features; "
                "give a folder that a run or save_pretrained wrote"
            )
        return AVModelConfig.from_dict(data)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); fetch or save it again") from None
    except AVError as error:
        raise DataError(f"{path}: {error}") from None
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} is not a model config ({error}); "
            "give a folder that a run or save_pretrained wrote"
        ) from None


def _check_fit(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Raise DataError unless the tensors of a file have the model's names and shapes."""
    own = model.state_dict()
    problems = {
        "missing": sorted(own.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - own.keys()),
        "misshapen": [
            f"{name} {list(tensors[name].shape)} instead of {list(own[name].shape)}"
            for name in sorted(own.keys() & tensors.keys())
            if own[name].shape != tensors[name].shape
        ],
    }
    found = [
        f"{kind}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
        for kind, names in problems.items()
        if names
    ]
    if found:
        raise DataError(
            f"the weights in {path} are not this model's ({'; '.join(found)}); "
            "use the config that was saved beside them"
        )


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
