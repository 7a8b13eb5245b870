"""Parquet files → the texts of their rows, by row groups."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workers.contract.sources import CorpusError
from workers.contract.text_files import TextFile

ROWS_AT_ONCE = 1024


def group_sizes(file: TextFile) -> list[int]:
    """Return the size of each row group, in bytes of the decompressed table.

    Raises:
        CorpusError: it is no Parquet file, or cannot be read.
    """
    with _opened(file) as table:
        return [table.metadata.row_group(group).total_byte_size for group in range(table.num_row_groups)]


def texts(file: TextFile, begin: int, end: int, column: str) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each row of these row groups that is not null, counted from 0 in the file, and its text.

    Raises:
        CorpusError: the file cannot be read, or has no such column of text.
    """
    with _opened(file) as table:
        _check_column(file, table.schema_arrow, column)
        row = sum(table.metadata.row_group(group).num_rows for group in range(begin))
        for batch in table.iter_batches(ROWS_AT_ONCE, row_groups=list(range(begin, end)), columns=[column]):
            for text in _as_bytes(batch.column(0)):
                if text is not None:
                    yield row, text
                row += 1


def _as_bytes(column: Any) -> list[bytes | None]:
    """Turn an Arrow array of text into undecoded bytes, so that a wrong encoding is ours to tell."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    texts: list[bytes | None] = column.cast(pa.large_binary()).to_pylist()
    return texts


def _check_column(file: TextFile, schema: Any, column: str) -> None:
    import pyarrow as pa

    if column not in schema.names:
        raise CorpusError(
            f"{file}: has no column {column!r}, its columns are {', '.join(schema.names)}; write data.text_column"
        )
    kind = schema.field(column).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(is_text(value) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        raise CorpusError(f"{file}: column {column!r} holds {kind}, not text; write another data.text_column")


@contextmanager
def _opened(file: TextFile) -> Iterator[Any]:
    from pyarrow import ArrowException, parquet

    try:
        with file.open() as raw, parquet.ParquetFile(raw) as table:
            yield table
    except (OSError, ArrowException) as error:
        raise CorpusError(f"{file}: no readable Parquet file ({error}); copy the file again") from error
