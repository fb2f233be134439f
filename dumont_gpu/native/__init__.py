"""The compiled CPU kernels behind ctypes: the one package that knows their C ABI (headers in kernels/cpu)."""

from __future__ import annotations

from dumont_gpu.native.blake3 import digest_many
from dumont_gpu.native.device_tables import (
    ENCODE_JOB,
    LZ4_BLOCK,
    PLANE_PLAN,
    STORED_COPY,
    ZIPNN_BLOCK,
    layout,
    lz4_device_blocks,
    zipnn_device_blocks,
    zipnn_encode_job,
    zipnn_header,
)
from dumont_gpu.native.memory import address_of, copy, spoil
from dumont_gpu.native.small_files import (
    CHANGED,
    NOT_REGULAR,
    SHORT,
    Directory,
    NewFile,
    OldFile,
    create_files,
    finish_directories,
    read_files,
)
from dumont_gpu.native.zipnn import (
    PROBE_CANDIDATES,
    Dtype,
    cpu_path,
    probe,
    select_cpu_path,
    zipnn_decode,
    zipnn_encode,
)
from dumont_gpu.native.zstd import zstd_blocks

__all__ = [
    "CHANGED",
    "ENCODE_JOB",
    "LZ4_BLOCK",
    "NOT_REGULAR",
    "PLANE_PLAN",
    "PROBE_CANDIDATES",
    "SHORT",
    "STORED_COPY",
    "ZIPNN_BLOCK",
    "Directory",
    "Dtype",
    "NewFile",
    "OldFile",
    "address_of",
    "copy",
    "cpu_path",
    "create_files",
    "digest_many",
    "finish_directories",
    "layout",
    "lz4_device_blocks",
    "probe",
    "read_files",
    "select_cpu_path",
    "spoil",
    "zipnn_decode",
    "zipnn_device_blocks",
    "zipnn_encode",
    "zipnn_encode_job",
    "zipnn_header",
    "zstd_blocks",
]
