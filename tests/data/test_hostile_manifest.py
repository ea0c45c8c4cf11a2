"""A dataset.json that somebody changed by hand ends in a DataError that names the file."""

import json
import shutil

import pytest

from avplatform.cli import main
from avplatform.data import open_data
from avplatform.data.store.schema import MANIFEST_FILE
from avplatform.models.errors import AVError
from tests.data.stores import spec_of, write
from tests.mutations import STRANGE, changed, paths


@pytest.mark.parametrize("kind", ["vectors", "maps"])
def test_every_changed_entry_is_harmless_or_refused(tmp_path, kind):
    spec, store = spec_of(kind), tmp_path / "store"
    write(store, spec, {"train": 3, "test": 2})
    file = store / MANIFEST_FILE
    good, refused = json.loads(file.read_text()), 0
    for path in paths(good):
        for value in STRANGE:
            file.write_text(json.dumps(changed(good, path, value)))
            try:
                open_data(store, task=spec.task).split("train").batch([0, 1])
            except AVError:  # and nothing else
                refused += 1
            finally:
                shutil.rmtree(store / ".arrays", ignore_errors=True)
    assert refused > 300


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("spec", "labels", "weak"),
            "abc",
            "DataSpec.labels is {'weak': 'abc'}; it must be of kind dict[str, list[int]]",
        ),
        (
            ("spec", "segments"),
            10**12,
            "DataSpec.segments is 1000000000000; it must be a whole number from 1 to",
        ),
        (
            ("spec", "features", "audio_dim"),
            None,
            "FeatureSpec.audio_dim is None; it must be of kind int",
        ),
        (("spec", "provenance"), -1, "DataSpec.provenance is -1"),
        (
            ("splits", "train", "shards", 0, "bytes"),
            None,
            "Shard.bytes is None; it must be of kind int",
        ),
    ],
)
def test_verify_says_what_is_wrong_with_the_manifest(tmp_path, capsys, path, value, message):
    store = tmp_path / "store"
    write(store, spec_of(), {"train": 3, "test": 2})
    file = store / MANIFEST_FILE
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    assert main(["data", "verify", str(store)]) == 1
    said = " ".join(capsys.readouterr().out.split())  # its lines are broken where the screen ends
    assert message in said and MANIFEST_FILE in said


def test_a_manifest_of_endless_brackets_is_refused(tmp_path, capsys):
    (tmp_path / MANIFEST_FILE).write_text("[" * 100_000)
    assert main(["data", "verify", str(tmp_path)]) == 1
    assert f"{MANIFEST_FILE} cannot be read" in " ".join(capsys.readouterr().out.split())
