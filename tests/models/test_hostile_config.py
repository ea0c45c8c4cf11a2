"""A model's config.json that somebody changed ends in a DataError, and takes no memory."""

import json
import math

import pytest
import torch

from avplatform.models.av_model import CONFIG_FILE, AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders.dch import DCHConfig
from avplatform.models.decoders.leap_config import LEAPConfig
from avplatform.models.encoders.ave import AVEConfig
from avplatform.models.encoders.mmpyr import MMPyrConfig
from avplatform.models.errors import DataError, UsageError
from avplatform.tasks.registry import task_of_model
from tests.mutations import STRANGE, changed, paths

CONFIGS = {
    "mmpyr-leap": AVModelConfig(
        task="avvp",
        classes=["a", "b"],
        label_texts=["a", "b"],
        label_dim=3,
        features=FeatureSpec(audio_dim=4, visual_dim=6, motion_dim=5),
        encoder=MMPyrConfig(width=8, heads=2, hidden=8, levels=2),
        decoder=LEAPConfig(heads=2, hidden=8),
        task_config={"supervision": "weak"},
    ),
    "ave-dch": AVModelConfig(
        task="avel",
        classes=["a", "b"],
        features=FeatureSpec(audio_dim=4, visual_dim=6, map_size=(2, 2)),
        encoder=AVEConfig(attention_width=4, lstm_width=4),
        decoder=DCHConfig(hidden=4),
        task_config={"supervision": "full"},
    ),
}


@pytest.fixture(params=sorted(CONFIGS))
def folder(request, tmp_path):
    config = CONFIGS[request.param]
    embeddings = torch.zeros(2, 3) if config.label_texts else None
    AVModel(config, label_embeddings=embeddings).save_pretrained(tmp_path)
    return tmp_path


def test_every_changed_entry_is_harmless_or_refused(folder):
    file = folder / CONFIG_FILE
    good = json.loads(file.read_text())
    refused = 0
    for path in paths(good):
        for value in STRANGE:
            file.write_text(json.dumps(changed(good, path, value)))
            try:
                AVModel.from_pretrained(folder)
            except DataError as error:  # and nothing else
                refused += 1
                assert CONFIG_FILE in str(error) or "model.safetensors" in str(error), (
                    path,
                    value,
                    str(error),
                )
    assert refused > 200


def test_a_config_of_thousands_of_layers_is_refused_by_name(folder):
    file = folder / CONFIG_FILE
    good = json.loads(file.read_text())
    depth = {"mmpyr": ("encoder", "levels"), "ave": ("encoder", "residual_blocks")}[
        good["encoder"]["_type"]
    ]
    file.write_text(json.dumps(changed(good, depth, 10**6)))
    with pytest.raises(
        DataError, match=rf"{depth[1]} is 1000000; it must be a whole number from 1 to"
    ):
        AVModel.from_pretrained(folder)


def test_a_config_of_wide_layers_is_compared_before_memory_is_taken(folder, monkeypatch):
    file = folder / CONFIG_FILE
    good = json.loads(file.read_text())
    file.write_text(
        json.dumps(
            changed(
                good, ("encoder", "width" if "width" in good["encoder"] else "lstm_width"), 2**16
            )
        )
    )
    built = []
    plain = AVModel.__init__

    def init(self, *args, **options):
        plain(self, *args, **options)
        built.append({p.device.type for p in self.parameters()})

    monkeypatch.setattr(AVModel, "__init__", init)
    with pytest.raises(DataError, match="not this model's"):
        AVModel.from_pretrained(folder)
    assert built == [{"meta"}]


@pytest.mark.parametrize(("kind", "option"), [("avvp", "threshold"), ("avel", "decision")])
def test_options_of_the_task_are_checked_when_it_is_made(kind, option):
    config = {"avvp": CONFIGS["mmpyr-leap"], "avel": CONFIGS["ave-dch"]}[kind]
    for value in (None, [1], {"a": 1}, "abc", math.nan):
        given = AVModelConfig.from_dict(
            changed(config.to_dict(), ("task_config",), {option: value})
        )
        with pytest.raises((DataError, UsageError), match=option):
            task_of_model(given)


def test_a_kernel_without_a_middle_is_refused():
    with pytest.raises(UsageError, match="kernel is 2; it must be odd"):
        MMPyrConfig(kernel=2)


def test_a_config_of_endless_brackets_is_refused(folder):
    (folder / CONFIG_FILE).write_text("[" * 100_000)
    with pytest.raises(DataError, match="is not valid JSON"):
        AVModel.from_pretrained(folder)
