"""A URL in place of a path on this machine is refused by every command, before it does anything.

Else a folder of the name "s3:" would be written, or looked for.
"""

import os
from pathlib import Path

import pytest

from avplatform import train
from avplatform.cli import main
from avplatform.features.weights import parse_weights
from avplatform.models.errors import UsageError
from avplatform.models.paths import expanded
from tests.models.cells import build
from tests.timeline.examples import example

URL = "s3://bucket/folder"
COMMANDS = {
    "train --output-dir URL": "output-dir",
    "train --data URL": "data",
    "train --cache-dir URL": "cache-dir",
    "train --init-from URL": "init-from",
    "train --labels.embeddings glove:URL": "labels.embeddings",
    "train --job t4-small --job-repo me/model --data URL": "data",
    "train --resume URL": "",
    "train --config URL": "",
    "eval URL": "model",
    "eval run --data URL": "data",
    "eval run --out URL": "out",
    "eval run --json URL": "",
    "eval run --predictions URL": "predictions",
    "score URL --truth t": "predictions",
    "score lists --truth t --json URL": "",
    "compare URL": "runs",
    "compare a b --out URL": "out",
    "sweep URL": "file",
    "sweep sweep.yaml --out URL": "out",
    "sweep sweep.yaml --engine ray --out URL": "out",
    "reproduce table --out URL": "out",
    "reproduce table --checkpoints URL": "checkpoints",
    "reproduce table --run NAME=URL": "run",
    "predict a.mp4 --model URL": "model",
    "predict a.mp4 --model m --weights vggish=URL": "weights",
    "predict a.mp4 --model m --labels-file URL": "labels-file",
    "demo URL": "models",
    "info URL": "target",
    "runs ls URL": "folder",
    "board URL": "folder",
    "models ls URL": "folder",
    "data import llp URL --out o": "source",
    "data import llp folder --out URL": "out",
    "data verify URL": "data",
    "data card URL": "folder",
    "data simulate --task avvp --annotations a --out URL": "out",
    "data push URL me/model": "folder",
    "extract a.mp4 --out o --weights URL": "weights",
    "extract a.mp4 --out o --annotations URL": "annotations",
    "extract a.mp4 --out o --events URL": "events",
    "pseudo-label --out o --annotations URL": "annotations",
    "pseudo-label --annotations a --out o --visual-texts URL": "visual-texts",
    "pseudo-label score URL --annotations a": "folder",
    "pseudo-label exchange --model m --out URL": "out",
    "pseudo-label noise-ratio --model m --out URL": "out",
    "pseudo-label drop --data d --out URL": "out",
    "pseudo-label import file --annotations a --out URL": "out",
    "embed-labels dog --out URL": "out",
    "embed-labels dog --embeddings URL": "embeddings",
    "bank URL": "model",
    "convert URL --from han --out o": "file",
    "convert file --from han --out URL": "out",
    "export model --to onnx --out URL": "out",
    "push URL me/model": "folder",
    "space push URL me/model": "model",
    "collection URL me/name": "folder",
}
"""A command line with a URL in it, and the name of its option."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, in which nothing may be made."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("line", COMMANDS)
def test_a_url_in_place_of_a_path_is_refused_by_every_command(line, here, capsys):
    assert main(line.replace("URL", URL).split()) == 2
    said = capsys.readouterr().err
    where = f"option {COMMANDS[line]}: " if COMMANDS[line] else ""
    assert said.startswith(f"error: {where}{URL} is a URL, and a path on this machine")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "act",
    [
        lambda: train(data="demo", output_dir=URL),
        lambda: build("avel", "ave", "dch").save_pretrained(URL),
        lambda: example().save(URL),
        lambda: parse_weights([URL]),
        lambda: expanded(URL),
    ],
)
def test_python_refuses_the_same(act, here):
    with pytest.raises(
        UsageError, match=r"s3://bucket/folder is a URL, and a path on this machine"
    ):
        act()


def test_what_only_looks_like_a_url_is_a_path(here):
    for text in ("C://x", "a/b://c", "s3:/bucket", "://x", "s3://"):
        assert expanded(text) == Path(text)


def test_texts_that_are_no_paths_may_be_urls(here, capsys):
    args = ["push", "run", "me/model", "--message", "https://example.org/why"]
    assert main(args) != 0
    assert "is a URL" not in capsys.readouterr().err


def test_a_page_has_no_address_of_a_video_that_is_at_a_url(tmp_path):
    timeline = example()
    timeline.video = "s3://bucket/video.mp4"
    page = timeline.save(tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'src=""' in page and "s3://bucket/video.mp4" in page
