"""Tables in parquet files."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from avplatform.base.files import arrow_path
from avplatform.data.adapters.table.events import Reading
from avplatform.data.adapters.table.readers.table import Header
from avplatform.models.errors import DataError


def read_parquet(reading: Reading) -> None:
    """Read a parquet table; a place is the number of the row, from 1."""
    reading.unit = "row"
    try:
        table = pq.read_table(arrow_path(reading.file))
    except (OSError, pa.ArrowException) as error:
        text = str(error).splitlines()[0][:120]
        raise DataError(f"{reading.file} cannot be read as parquet ({text})") from None
    header = Header(reading, 0, table.column_names)
    if not header.columns:
        return
    for row, values in enumerate(zip(*(c.to_pylist() for c in table.columns), strict=True), 1):
        header.row(row, [v.total_seconds() if isinstance(v, timedelta) else v for v in values])
    header.finish()
