"""Rows of Parquet files, read a batch at a time."""

from collections.abc import Iterator
from typing import BinaryIO

BATCH = 1024


def parquet_rows(name: str, file: BinaryIO) -> Iterator[tuple[str, dict]]:
    """Yields the rows of a Parquet file, each with its place ("file:row 0").

    Raises:
      ValueError: if pyarrow is not installed, or the file is not one of Parquet.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f'{name}: to read Parquet files, install the extra "hub": pip install -e ".[hub]"') from error
    try:
        number = 0
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(BATCH):
            for row in batch.to_pylist():
                yield f"{name}:row {number}", row
                number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{name}: not a Parquet file, or a broken one ({error}); fetch it again") from error
