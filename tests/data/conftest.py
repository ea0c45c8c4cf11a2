"""Official files of LLP, small, for the tests of importing."""

import pytest

from tests.data.official import llp_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """One that the tests of a module share and do not change."""
    return llp_tree(tmp_path_factory.mktemp("official") / "llp")


@pytest.fixture
def own_tree(tmp_path):
    """One that a test may change."""
    return llp_tree(tmp_path / "llp")
