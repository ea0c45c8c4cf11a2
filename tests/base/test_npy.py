"""One reader of .npy files: shapes that are open, types, mapping, and files that lie."""

import numpy as np
import pytest

from avplatform.base.npy import BadFeature, read_npy


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_read_as_it_was_written(tmp_path, order, mapped):
    values = np.asarray(np.arange(6.0).reshape(2, 3), order=order)
    np.save(tmp_path / "x.npy", values)
    for shape in (None, (2, 3), (None, 3)):
        found = read_npy(tmp_path / "x.npy", shape, mapped=mapped)
        assert (found == values).all() and found.dtype == values.dtype
        found[0, 0] = 9  # a copy: the file stays as it is
    assert isinstance(found, np.memmap) == mapped


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (np.zeros((2, 3)), {"shape": (2, 4)}, r"has shape \(2, 3\) instead of \(2, 4\)"),
        (np.zeros((0, 3)), {"shape": (None, 3)}, r"instead of \(any, 3\)"),
        (np.zeros(3, bool), {}, "holds bool, not numbers"),
        (np.array([1.0, np.nan]), {"finite": True}, "a NaN or an infinite number"),
        (np.array([{}]), {"kinds": None}, "pickled Python objects"),
    ],
)
def test_another_array_than_asked_for_is_refused(tmp_path, values, options, reason):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(BadFeature, match=reason):
        read_npy(tmp_path / "x.npy", **options)


def test_a_header_that_claims_more_than_the_file_holds_takes_no_memory(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 10)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"12345678")
    for mapped in (False, True):
        with pytest.raises(BadFeature, match="is truncated: 8 of 80000000000000 bytes"):
            read_npy(tmp_path / "x.npy", mapped=mapped)
