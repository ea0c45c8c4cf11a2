"""A cache that cannot be written ends in one message with the remedy."""

import pytest

from avplatform.base.files import cache_root
from avplatform.cli import main
from avplatform.data.simulate.demo import make_demo
from avplatform.models.errors import DataError

TRAIN = [
    "train",
    "--task",
    "avel",
    "--cpu",
    "--max-steps",
    "1",
    "--threads",
    "1",
    "--no-save-plots",
]


@pytest.fixture
def blocked(tmp_path, monkeypatch):
    """A cache below something that is not a folder, which cannot even be made."""
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("AVPLATFORM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_demo_data_that_cannot_be_kept(blocked, capsys):
    assert main(TRAIN) == 1
    said = capsys.readouterr().err
    assert "cannot write the cache" in said and "--cache-dir" in said and "AVPLATFORM_CACHE" in said


def test_arrays_that_cannot_be_kept(blocked, capsys, monkeypatch):
    make_demo("avel", blocked / "data", sizes={"train": 4, "validation": 4, "test": 4})
    monkeypatch.setattr("avplatform.data.reading.arrays.os.access", lambda *given: False)
    assert main([*TRAIN, "--data", "data"]) == 1
    assert "cannot write the cache" in capsys.readouterr().err
    assert main([*TRAIN, "--data", "data", "--cache-dir", "cache", "--batch-size", "4"]) == 0


def test_a_user_without_a_home_is_told_to_name_a_cache(monkeypatch):
    monkeypatch.delenv("AVPLATFORM_CACHE", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(DataError, match="set AVPLATFORM_CACHE"):
        cache_root()
