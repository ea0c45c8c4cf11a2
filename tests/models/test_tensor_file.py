"""Tensor files have the permissions of any new file, whatever their writer gives them."""

import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avplatform.models.files import save_tensors


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX files")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_file_has_the_rights_that_the_user_gives_new_files(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == mode


def test_arrays_and_tensors_come_back_as_they_were(tmp_path):
    given = {
        "half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "bits": np.array([0, 255], dtype=np.uint8),
        "wanting": torch.zeros(2, requires_grad=True),
    }
    save_tensors(given, tmp_path / "a.safetensors", {"about": "numbers"})
    found = load_file(tmp_path / "a.safetensors")
    assert set(found) == set(given)
    for name, value in given.items():
        assert (
            torch.equal(found[name], torch.as_tensor(value).detach())
            and found[name].dtype == torch.as_tensor(value).dtype
        )


@pytest.mark.filterwarnings("error")
def test_arrays_may_be_read_only_shared_turned_round_and_of_another_byte_order(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = {
        "fixed": np.frombuffer(array.tobytes(), np.float32),
        "one": array,
        "same": array,
        "back": array[::-1],
    }
    given |= {"big": array.astype(">f4"), "few": array[:, ::2], "number": np.float32(3)}
    save_tensors(given, tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    assert all(np.array_equal(found[name].numpy(), value) for name, value in given.items()) and set(
        found
    ) == set(given)
