"""OV-AVEBench in full: all 24,800 real rows are written, imported and compared with their files.

The features are 4 and 6 values wide instead of 128 and 512, so that the disk is spared.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.adapters.official_files import NO_SPLIT
from avplatform.data.adapters.ovave import simulation
from avplatform.data.adapters.ovave.annotations import COUNTS, LABEL_FILE, META_FILE
from avplatform.data.adapters.ovave.classes import BACKGROUND, UNSEEN
from avplatform.data.verify import verify_data
from avplatform.models.errors import DataError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "AVP_OVAVE_DIR" not in os.environ,
        reason="AVP_OVAVE_DIR is not set: the real annotations are not here",
    ),
]
NARROW = {"audio": 4, "visual": 6}
CLIPS = {
    "train": (13182, 0, 3211),
    "validation": (1651, 4147, 1402),
    "test": (1664, 4156, 1406),
}
"""Clips of seen and of unseen classes, and clips without event, of each split."""
FLIPPED, SWAPPED, LAST = "EpxQKLhAP0s", "526-vt3MvE8", "tWe4EJtI3nE"
"""The first two clips of the list, both of people burping, and the last one."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The layout of files and the store that the commands make of all real annotations."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        for name, width in NARROW.items():
            patch.setitem(simulation.WIDTHS, name, width)
            patch.setitem(simulation.OUTPUTS, name, (name, width, simulation.OUTPUTS[name][2]))
        given = ["--task", "ovavel", "--annotations", os.environ["AVP_OVAVE_DIR"]]
        layout = ["--layout", "official", "--out", str(folder / "layout")]
        assert main(["data", "simulate", *given, *layout]) == 0
    assert (
        main(["data", "import", "ovave", str(folder / "layout"), "--out", str(folder / "store")])
        == 0
    )
    yield folder
    shutil.rmtree(folder)


def test_all_clips_are_there_by_split_group_and_event(whole):
    data = open_data(whole / "store", task="ovavel")
    unseen = [data.spec.classes.index(name) for name in UNSEEN]
    assert {name: len(data.split(name)) for name in CLIPS} == COUNTS
    for name, (seen, others, empty) in CLIPS.items():
        split = data.split(name)
        of_unseen = int(np.isin(split.labels("category"), unseen).sum())
        assert (len(split) - of_unseen, of_unseen) == (seen, others)
        assert int((split.labels("video") == BACKGROUND).sum()) == empty
    for name, stream in NARROW.items():
        assert getattr(data.split("test").batch([0, 5819]), name).shape == (2, 10, stream)


def test_the_store_is_clean_beside_its_annotations(whole):
    given = ["data", "verify", str(whole / "store"), "--annotations"]
    assert main([*given, os.environ["AVP_OVAVE_DIR"]]) == 0
    found = verify_data(whole / "store", annotations=whole / "layout")
    assert not found.errors and not found.warnings, found.lines()


@pytest.fixture
def copy(tmp_path):
    """Return a function that changes the lines and the labels in a copy of the annotations."""

    def change(lines=lambda rows: rows, labels=lambda found: found):
        for file in Path(os.environ["AVP_OVAVE_DIR"]).glob("*ov*"):
            shutil.copyfile(file, tmp_path / file.name)
        meta, told = tmp_path / META_FILE, tmp_path / LABEL_FILE
        meta.write_text("\n".join(lines(meta.read_text(encoding="utf-8").splitlines())) + "\n")
        told.write_text(json.dumps(labels(json.loads(told.read_text(encoding="utf-8")))))
        return tmp_path

    return change


def without(found, *names):
    return {name: entry for name, entry in found.items() if name not in names}


def test_a_flipped_label_is_named(whole, copy):
    flipped = {"category": "people burping", "label": "[1, 1, 1, 1, 0, 0, 0, 0, 0, 0]"}
    folder = copy(labels=lambda found: {**found, FLIPPED: flipped})
    assert main(["data", "verify", str(whole / "store"), "--annotations", str(folder)]) == 1
    (error,) = verify_data(whole / "store", annotations=folder).errors
    assert (error.kind, error.clip_id) == ("label is not the official one", FLIPPED)
    assert (error.split, error.row, error.text) == ("train", 0, "segment differs")


def test_a_swapped_category_is_named(whole, copy):
    other = {"category": "people booing"}
    swapped = lambda found: {**found, SWAPPED: {**found[SWAPPED], **other}}  # noqa: E731
    with pytest.raises(DataError, match=f"clip {SWAPPED} .line 3.*'people booing', but 'people bu"):
        verify_data(whole / "store", annotations=copy(labels=swapped))
    line = lambda row: row.replace("burping", "booing") if SWAPPED in row else row  # noqa: E731
    folder = copy(lambda rows: [line(row) for row in rows], swapped)
    errors = verify_data(whole / "store", annotations=folder).errors
    assert {(e.clip_id, e.text) for e in errors} == {
        (SWAPPED, f"{name} differs") for name in ("segment", "video", "category")
    }


def test_an_id_that_the_annotations_miss_is_named(whole, copy):
    with pytest.raises(DataError, match=f"line 2: clip {FLIPPED} has no label in released"):
        verify_data(whole / "store", annotations=copy(labels=lambda f: without(f, FLIPPED)))
    folder = copy(lambda rows: rows[:-1])
    found = verify_data(whole / "store", annotations=folder)
    (error,) = found.errors
    assert error.kind == "clip that the official files do not have"
    assert (error.clip_id, error.split, error.row) == (LAST, "test", 24799)
    assert any(NO_SPLIT in w.kind and LAST in w.text for w in found.warnings)


def test_an_id_that_the_store_misses_is_named(whole, copy):
    entry = {"category": "helicopter", "label": str([1] * 10)}
    folder = copy(
        lambda rows: [*rows, "test,helicopter,open,aaaaaaaaaaa"],
        lambda found: {**found, "aaaaaaaaaaa": entry},
    )
    found = verify_data(whole / "store", annotations=folder)
    assert not found.errors
    (told,) = (
        w for w in found.warnings if w.kind == "clips of the official files that are not here"
    )
    assert told.text == "1 clip: aaaaaaaaaaa"
