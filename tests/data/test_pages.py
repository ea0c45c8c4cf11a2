"""Copied pages hold what a general reader decodes; what cannot be copied is decoded."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avplatform.data.reading import pages

WIDTH = 300


def file_of(values, *, size=WIDTH, nullable=True, **options):
    """A parquet file of lists, row numbers and texts, in two row groups, as bytes."""
    kind = pa.list_(pa.field("item", pa.from_numpy_dtype(values.dtype), nullable=nullable), size)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)
    columns = {
        "row": pa.array(range(len(values))),
        "audio": lists,
        "id": pa.array([f"c{i}" for i in range(len(values))]),
    }
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(columns),
        buffer,
        **{"row_group_size": 70, "compression": "none", "use_dictionary": False, **options},
    )
    return buffer.getvalue()


def read(raw, group):
    footer = pq.read_metadata(io.BytesIO(raw))
    start, size = pages.group_range(footer, group)
    part = raw[start : start + size]
    return pages.read_group(
        part, start, footer, group, features={"audio": WIDTH}, others=["row", "id"]
    )


@pytest.fixture
def copied(monkeypatch):
    """Whether each feature was copied."""
    found, real = [], pages._plain_values
    monkeypatch.setattr(
        pages, "_plain_values", lambda *args: found.append((out := real(*args)) is not None) or out
    )
    return found


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    "options", [{}, {"data_page_size": 5000}, {"nullable": False}, {"write_statistics": False}]
)
def test_plain_pages_are_copied(copied, dtype, options):
    values = np.random.default_rng(0).standard_normal((100, WIDTH)).astype(dtype)
    raw = file_of(values, **options)
    for group, rows in enumerate((slice(0, 70), slice(70, 100))):
        features, table = read(raw, group)
        assert features["audio"].dtype == dtype
        np.testing.assert_array_equal(features["audio"], values[rows])
        assert (
            table["row"].to_pylist() == list(range(100))[rows]
            and table["id"].to_pylist()[0] == f"c{rows.start}"
        )
    assert copied == [True, True]


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zstd"},
        {"use_dictionary": True},
        {"data_page_version": "2.0"},
        {"column_encoding": {"audio.list.element": "BYTE_STREAM_SPLIT"}},
    ],
)
def test_other_pages_are_decoded(copied, options):
    values = np.random.default_rng(0).integers(0, 9, (100, WIDTH)).astype("float32")
    raw = file_of(values, **options)
    np.testing.assert_array_equal(read(raw, 1)[0]["audio"], values[70:])
    assert copied == [False]


def test_a_missing_value_is_not_skipped_over(copied):
    values = np.zeros((100, WIDTH), "float32")
    kind = pa.list_(pa.float32(), WIDTH)
    flat = pa.array(values.reshape(-1), mask=np.arange(values.size) == 5)
    columns = {
        "row": pa.array(range(100)),
        "audio": pa.FixedSizeListArray.from_arrays(flat, type=kind),
    }
    buffer = io.BytesIO()
    pq.write_table(
        pa.table({**columns, "id": pa.array(["c"] * 100)}),
        buffer,
        compression="none",
        use_dictionary=False,
    )
    found = read(buffer.getvalue(), 0)[0]["audio"]
    assert copied == [False] and np.isnan(found[0, 5]) and not np.isnan(found).sum() > 1


@pytest.mark.parametrize("at", [0, 3, 9, 30, 5000])
def test_damaged_bytes_are_an_error_or_numbers_but_never_a_crash(at):
    values = np.ones((100, WIDTH), "float32")
    raw = bytearray(file_of(values))
    start, _ = pages.group_range(pq.read_metadata(io.BytesIO(bytes(raw))), 0)
    for damage in (0, 255, 127):
        changed = bytearray(raw)
        changed[start + at] = damage
        try:
            features, table = read(bytes(changed), 0)
        except (OSError, ValueError, RuntimeError, pa.ArrowException):
            continue
        assert features["audio"].shape == (70, WIDTH) and len(table) == 70
