"""A model of third-party parts is saved and loaded, however they are annotated and built."""

import json
import typing
from dataclasses import dataclass, field

import pytest
import torch

from avplatform.models.av_model import CONFIG_FILE, AVModel, without_memory
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders.mmil import MMILConfig
from avplatform.models.encoders import ENCODERS
from avplatform.models.encoders.han import HAN, HANConfig
from avplatform.models.errors import DataError
from avplatform.models.typed_values import convert


@dataclass(kw_only=True)
class LooseConfig(HANConfig):
    """Annotations that name no kind of their entries."""

    _type: str = "loose"
    steps: tuple = (1, 2)
    names: list = field(default_factory=lambda: ["a"])


class Loose(HAN):
    """An encoder that reads numbers while it is built, as schedules of drop path do."""

    Config = LooseConfig

    def __init__(self, **parts):
        super().__init__(**parts)
        self.rates = torch.linspace(0, 0.1, 3).tolist()


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setitem(ENCODERS, "loose", Loose)
    config = AVModelConfig(
        task="avvp",
        classes=["a", "b"],
        features=FeatureSpec(audio_dim=4, visual_dim=6, motion_dim=5),
        encoder=LooseConfig(width=8, heads=2, hidden=8),
        decoder=MMILConfig(),
    )
    AVModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_model_that_cannot_be_built_without_memory_is_loaded(saved):
    model = AVModel.from_pretrained(saved)
    assert model.encoder.rates[2] == pytest.approx(0.1) and model.config.encoder.steps == (1, 2)


def test_its_weights_are_compared_all_the_same(saved):
    content = json.loads((saved / CONFIG_FILE).read_text())
    content["encoder"]["hidden"] = 16
    (saved / CONFIG_FILE).write_text(json.dumps(content))
    with pytest.raises(DataError, match="misshapen"):
        AVModel.from_pretrained(saved)


def test_other_errors_of_building_are_not_hidden():
    def fail():
        raise RuntimeError("sizes do not fit")

    with pytest.raises(RuntimeError, match="sizes do not fit"):
        without_memory(fail)
    assert without_memory(lambda: torch.zeros(2).device.type) == "meta"
    assert without_memory(lambda: torch.zeros(2).tolist()) is None


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        (tuple, [1, "a"], (1, "a")),
        (typing.Tuple, [1], (1,)),  # noqa: UP006
        (typing.List, [1], [1]),  # noqa: UP006
        (dict, {1: 2}, {1: 2}),
        (typing.Sequence[int], [1], [1]),
        (typing.TypeVar("T"), 3, 3),
    ],
)
def test_kinds_that_say_little_are_asked_for_little(kind, value, found):
    assert convert(kind, value) == found


@pytest.mark.parametrize(
    ("kind", "value"), [(tuple, "ab"), (list, (1,)), (list, "ab"), (dict, [1])]
)
def test_and_for_no_less(kind, value):
    with pytest.raises(ValueError):
        convert(kind, value)
