"""A path may begin with ~ wherever one is given: flags, YAML, the environment and Python.

The shell leaves ~ alone in --out=~/x, in quotes, and in NAME=~/x.
"""

import json
import os

import pytest
import torch

from avplatform import AVModel, create_model, evaluate, train
from avplatform.base.files import cache_root
from avplatform.cli import _with_home, main
from avplatform.data.adapters.source import Source
from avplatform.data.simulate.demo import make_demo
from avplatform.features.sources import find_files
from avplatform.features.weights import parse_weights, weights_folder
from avplatform.hub.folder import model_folder
from avplatform.models.texts.encoders import find_folder
from avplatform.models.texts.sources import open_source
from tests.models.cells import build

TINY = ["--task", "avel", "--encoder", "ave", "--decoder", "dch", "--max-steps", "1", "--cpu"]
SIZES = {"train": 8, "validation": 4, "test": 4}
TINY += ["--batch-size", "4", "--no-save-plots", "--threads", "1", "--precision", "no"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home and another working folder; no folder named ~ may be left in the latter."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    yield home
    assert not [name for name in os.listdir(here) if name.startswith("~")]


def test_commands_read_and_write_under_the_home(home):
    make_demo("avel", home / "data", sizes=SIZES)
    assert main(["train", *TINY, "--data=~/data", "--output-dir=~/run"]) == 0
    assert (home / "run" / "model").is_dir()
    scores = ["--cpu", "--json=~/s.json", "--predictions=~/p"]
    assert main(["eval", "~/run", *scores, "--data=~/data"]) == 0
    assert json.loads((home / "s.json").read_text(encoding="utf-8")) and any(home.glob("p*"))
    assert main(["train", "--config=~/run", "--output-dir=~/again"]) == 0
    assert main(["train", "--resume=~/again"]) == 0
    assert main(["info", "~/run"]) == 0
    (home / "sweep.yaml").write_text("base: {task: avel}\nseeds: [1]\n")
    assert main(["sweep", "~/sweep.yaml", "--out=~/sweep", "--dry-run"]) == 0
    assert main(["embed-labels", "dog", "--out=~/dog.safetensors"]) == 0
    assert (home / "dog.safetensors").is_file()


def test_python_takes_the_same_paths(home):
    build("avel", "ave", "dch").save_pretrained("~/model")
    assert (home / "model" / "config.json").is_file()
    AVModel.from_pretrained("~/model")
    assert model_folder("~/model") == home / "model"
    create_model("~/model")
    make_demo("avel", home / "data", sizes=SIZES)
    options = dict(
        data="~/data", task="avel", encoder="ave", decoder="dch", max_steps=1, cpu=True, threads=1
    )
    options |= dict(save_plots=False, precision="no", cache_dir="~/arrays")
    run = train(output_dir="~/run", **options)
    assert run.folder == home / "run" and (home / "arrays").is_dir()
    assert evaluate("~/run", cpu=True, json="~/s.json") and (home / "s.json").is_file()


def test_every_kind_of_file_is_found_under_the_home(home, monkeypatch):
    monkeypatch.setenv("AVPLATFORM_CACHE", "~/cache")
    assert cache_root() == home / "cache"
    monkeypatch.setenv("AVPLATFORM_WEIGHTS", "~/weights")
    assert weights_folder() == home / "weights"
    (home / "weights").mkdir()
    assert parse_weights(["~/weights"]) == {"folder": "~/weights"}
    (home / "encoder").mkdir()
    (home / "encoder" / "config.json").write_text('{"model_type": "bert"}')
    assert find_folder("~/encoder").path == home / "encoder"
    (home / "vectors.txt").write_text("dog 0.5 1.0\n")
    for name in ("~/vectors.txt", "glove:~/vectors.txt"):
        assert torch.equal(open_source(name).embed(["dog"]), torch.tensor([[0.5, 1.0]]))
    (home / "clip.mp4").write_bytes(b"x")
    assert find_files(["~/clip.mp4"]).files == {"clip": home / "clip.mp4"}
    assert find_files(["~"]).files == {"clip": home / "clip.mp4"}
    assert Source("~/x").folder == home / "x"


def test_only_a_tilde_where_a_path_begins_is_the_home(home):
    assert _with_home("--out=~/x") == f"--out={home}/x" and _with_home("~") == str(home)
    assert _with_home("--visual=clip:~/x") == f"--visual=clip:{home}/x"
    for text in ("a~b", "--labels=about ~5 s", "~nobody-of-this-name/x", "file:x~"):
        assert _with_home(text) == text
