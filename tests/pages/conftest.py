"""Things that several pages need, made once."""

import pytest

from tests.pages.places import Places


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """Things for pages; weights lie where every command looks for them."""
    made = Places(tmp_path_factory.mktemp("places"))
    patch = pytest.MonkeyPatch()
    patch.setenv("AVPLATFORM_WEIGHTS", str(made["weights"]))
    yield made
    patch.undo()
