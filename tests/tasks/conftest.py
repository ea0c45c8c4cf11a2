"""A small store of open-vocabulary clips, and runs on it."""

import pytest

from avplatform.cli import main
from avplatform.data.simulate.demo import make_demo

SIZES = {"train": 46, "validation": 67, "test": 67}


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ovavel") / "store"
    make_demo("ovavel", folder, sizes=SIZES)
    return folder


@pytest.fixture(scope="session")
def runs(store, tmp_path_factory):
    """A run of two steps with LEAP, whose epoch seen classes select, and one with DCH."""
    folders = {}
    for decoder in ("leap", "dch"):
        folders[decoder] = str(tmp_path_factory.mktemp("runs") / decoder)
        small = ["--encoder", "han", "--encoder-config.width", "16", "--encoder-config.heads", "2"]
        if decoder == "leap":
            small += ["--decoder-config.heads", "2", "--bank-clips", "40"]
            small += ["--select-by", "seen_average"]
        flags = ["train", "--task", "ovavel", "--decoder", decoder, *small, "--data", str(store)]
        flags += ["--max-steps", "2", "--batch-size", "8", "--output-dir", folders[decoder]]
        assert main([*flags, "--cpu"]) == 0
    return folders
