"""Pictures have room for what stands in them."""

import warnings

import pytest

from avplatform.evaluation.pictures import class_differences

LONG = "a run with many options in its name, each of them different from those of the other; " * 3


@pytest.mark.parametrize("streams", [["audio"], ["audio", "visual", "av"]])
@pytest.mark.parametrize("count", [1, 3, 28])
@pytest.mark.parametrize("name", ["han", LONG])
def test_few_classes_and_long_names_have_room(tmp_path, count, name, streams):
    row = {"classes": [f"class {i}" for i in range(count)], "difference": [1.0] * count}
    row.update(low=[0.0] * count, high=[2.0] * count)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where axes are left no room
        file = class_differences(
            dict.fromkeys(streams, row),
            tmp_path / "picture.png",
            title=f"{name} minus {name}",
            first=name,
            other=name,
        )
    assert file.is_file()
