"""The bytes of a file that a tensor takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Final

from dumont_gpu.format.entries import FileEntry
from dumont_gpu.sizes import KiB
from dumont_gpu.tensors.record import TensorRecord
from dumont_gpu.tensors.torch_zip import expected_start
from dumont_gpu.tensors.zip_members import header_size, locate

_LONGEST_LEAD: Final = 4 * KiB


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive bytes of a file: those of a tensor, and perhaps of the header before them.

    Where the bytes of a zip's member begin, only its local header says, just before them. To read it first would load
    its chunk twice; so both are loaded together, from where PyTorch is expected to have put them, and compared.

    Args:
        file: in the snapshot.
        start: offset in the file.
        lead: bytes before the tensor's first element: from the local header on; 0 if its place is certain.
        size: bytes of the tensor, behind them.
    """

    file: FileEntry
    start: int
    lead: int
    size: int

    @property
    def whole(self) -> int:
        """Bytes to load."""
        return self.lead + self.size


def likely_span(file: FileEntry, record: TensorRecord, content: BinaryIO) -> Span:
    """Returns the bytes that a tensor takes, most likely: `holds` tells, once they are loaded.

    Args:
        content: the file, to be read where nothing is likely.

    Raises:
        MalformedError: the zip is not sound.
    """
    member = record.member
    if member is None:
        return Span(file, record.start, 0, record.span)
    lead = expected_start(member) + record.start - member.header
    if record.start or lead > _LONGEST_LEAD or lead + record.span > member.room:
        return certain_span(file, record, content)
    return Span(file, member.header, lead, record.span)


def certain_span(file: FileEntry, record: TensorRecord, content: BinaryIO) -> Span:
    """Returns the bytes that a tensor takes; reads the header before them. Raises as `likely_span`."""
    return Span(file, locate(content, record).start, 0, record.span)


def holds(span: Span, record: TensorRecord, lead: bytes) -> bool:
    """Whether the tensor's first element follows the bytes `lead`, which were loaded from the start of a likely span.

    Raises:
        MalformedError: they are not the header that the zip's directory describes.
    """
    return not span.lead or record.member is None or header_size(lead, record.member) == span.lead
