"""A page runs an exported network on stored features, offline, in a real browser."""

import json
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision

pytest.importorskip("onnxruntime", reason="needs the extra export")

import avplatform
from avplatform import pipeline
from avplatform.features.vggish import VGGish
from avplatform.models.errors import DataError, UsageError
from avplatform.timeline.browser import RUNTIME, browser_page
from avplatform.timeline.options import PipelineConfig
from tests.models.cells import build, cell
from tests.timeline.chromium import Browser, find_chromium
from tests.timeline.test_pipeline import FakeExtractor, noise

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("AVP_ORT_WEB", "missing"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    options = {"threshold": 0.3, "gate": "modality"}
    model = cell("avvp", "han", "leap", task_options=options).model.eval()
    return model, avplatform.export(model, folder / "leap.onnx").file


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="no chromium; or name it in $AVP_CHROMIUM")
@pytest.mark.skipif(not FOLDER.is_dir(), reason="$AVP_ORT_WEB names no dist of onnxruntime-web")
def test_the_page_finds_what_torch_finds_without_a_network(exported, tmp_path):
    model, file = exported
    wanted = pipeline(model, extractor=FakeExtractor(5), config=PipelineConfig()).parse(noise())
    page = tmp_path / "page.html"
    page.write_text(browser_page(file, noise(), runtime=FOLDER), encoding="utf-8")
    with closing(Browser(tmp_path / "profile")) as browser:
        browser.open(page.as_uri())
        text = browser.evaluate("document.getElementById('data').textContent")
        rows = browser.evaluate("document.querySelectorAll('#events tr').length")
        asked, errors = browser.requests, browser.errors
    got = json.loads(text)
    assert wanted.events and rows == len(wanted.events)
    for name, values in wanted.scores.items():
        np.testing.assert_allclose(got["scores"][name], values, atol=1e-5)
    for name, values in wanted.attention.items():
        np.testing.assert_allclose(got["attention"][name], values, atol=1e-5)
    assert [(e["stream"], e["label"], e["onset"], e["offset"]) for e in got["events"]] == [
        (e.stream, e.label, e.onset, e.offset) for e in wanted.events
    ]
    np.testing.assert_allclose(
        [e["score"] for e in got["events"]], [e.score for e in wanted.events], atol=1e-5
    )
    assert not errors
    assert all(address.startswith(("file:", "blob:", "data:")) for address in asked)


def test_a_folder_without_the_runtime_is_named_with_the_package(exported, tmp_path):
    with pytest.raises(DataError, match=f"no {RUNTIME['module']}.*npm pack onnxruntime-web"):
        browser_page(exported[1], noise(), runtime=tmp_path)


def test_the_page_says_that_it_was_made_without_a_video(exported, tmp_path):
    for name in RUNTIME.values():
        (tmp_path / name).write_bytes(b"stands for onnxruntime-web")
    page = browser_page(exported[1], noise(), runtime=tmp_path, video="street")
    assert "made from features, without the video" in page and "no address of" not in page


def test_features_and_tasks_that_do_not_fit_are_refused(exported, tmp_path):
    with pytest.raises(UsageError, match="the model reads audio 6"):
        browser_page(
            exported[1],
            {"audio": np.zeros((5, 3), np.float32), "visual": np.zeros((5, 8), np.float32)},
            runtime=tmp_path,
        )
    other = avplatform.export(build("avel", "han", "dch"), tmp_path / "avel.onnx").file
    with pytest.raises(UsageError, match="a model for avel"):
        browser_page(other, noise("avel"), runtime=tmp_path)


def test_the_page_states_the_sizes_of_the_extractors():
    with torch.device("meta"):
        networks = {
            "ResNet-152": timm.create_model("resnet152", num_classes=0),
            "R(2+1)D-18": torchvision.models.video.r2plus1d_18(),
            "VGGish": VGGish(),
            "VGG-19": timm.create_model("vgg19", num_classes=0).features,
            "EfficientNet-Lite0": timm.create_model("tf_efficientnet_lite0", num_classes=0),
        }
    sizes = {
        name: 4 * sum(values.numel() for values in network.parameters()) / 1e6
        for name, network in networks.items()
    }
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    for cells in (sizes, [f"{size:.0f} MB" for size in sizes.values()]):
        assert f"| {' | '.join(cells)} |" in page
    three = sum(sizes[name] for name in ("ResNet-152", "R(2+1)D-18", "VGGish"))
    assert f"are {three:.0f} MB" in page
