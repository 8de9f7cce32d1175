"""Sources that are opened when their turn comes: of a thousand files not all can be open at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harborctl.model import FileResult, SourceFormat
from harborctl.sources.batch import WithoutHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    import pyarrow as pa

    from harborctl.sources.batch import Batch, Malformed, Original, Source


class OpenedInTurn:
    """A source that is opened, closed once its columns are known, and opened again to be read. See `Source`."""

    def __init__(self, opened: Callable[[], Source]) -> None:
        self._opened = opened
        source = opened()
        source.close()
        self.name = source.name
        self.format = source.format
        self.schema: pa.Schema = source.schema
        self.named = source.named
        self.size = source.size
        self.first_names = source.first_names if isinstance(source, WithoutHeader) else tuple(source.schema.names)
        self._settled: Sequence[str] | None = None
        self._source: Source | None = None
        self._result: FileResult | None = None

    def look_for(self, names: Collection[str]) -> Sequence[str]:
        """See `WithoutHeader`."""
        source = self._opened()
        try:
            return source.look_for(names) if isinstance(source, WithoutHeader) else ()
        finally:
            source.close()

    def all_names(self) -> Sequence[str]:
        """See `WithoutHeader`."""
        source = self._opened()
        try:
            return source.all_names() if isinstance(source, WithoutHeader) else source.schema.names
        finally:
            source.close()

    def settle(self, names: Sequence[str]) -> None:
        """See `WithoutHeader`."""
        self._settled = names
        source = self._open()
        source.close()
        self.schema = source.schema

    def _open(self) -> Source:
        source = self._opened()
        if self._settled is not None and isinstance(source, WithoutHeader):
            source.settle(self._settled)
        return source

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),
        malformed: Malformed | None = None,
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        self._source = source = self._open()
        yield from source.batches(columns, direct, malformed)
        self._result = source.result()
        source.close()

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`. Text is opened anew by the source that knows its blocks."""
        if self._source is not None and self.format not in {SourceFormat.PARQUET, SourceFormat.ARROW}:
            yield from self._source.originals(rows)
            return
        source = self._opened()
        try:
            yield from source.originals(rows)
        finally:
            source.close()

    def position(self) -> int:
        """See `Source.position`."""
        if self._result is not None:
            return self._result.bytes
        return self._source.position() if self._source is not None else 0

    def result(self) -> FileResult:
        """See `Source.result`."""
        if self._result is None:
            raise AssertionError("it has not been read to its end")
        return self._result

    def close(self) -> None:
        """See `Source.close`."""
        if self._source is not None:
            self._source.close()
