"""Counts the raw bytes that were worked on in each place, for the summary of a job."""

from __future__ import annotations

import threading

from dumont_gpu.sizes import format_size


class Tally:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.device = self.cpu = 0  # bytes

    def add(self, size: int, *, device: bool) -> None:
        with self._lock:
            if device:
                self.device += size
            else:
                self.cpu += size

    def text(self, device_name: str) -> str:
        """Returns where the bytes went: "cuda:0", or "cuda:0 5.2 GiB, cpu 1.1 GiB", or "cpu (no chunk for cuda:0)"."""
        if not self.cpu:
            return device_name
        if not self.device:
            return f"cpu (no chunk for {device_name})"
        return f"{device_name} {format_size(self.device)}, cpu {format_size(self.cpu)}"
