"""Opens a device, and tries it on copies of chunks, in threads beside those that work on the chunks."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING

from dumont_gpu.backends.device import NoDeviceError
from dumont_gpu.backends.trial import Sample, WrongBytesError, try_device
from dumont_gpu.errors import DumontError

if TYPE_CHECKING:
    from dumont_gpu.backends.cuda import CudaBackend

    OpenDevice = Callable[[Callable[[], bool]], CudaBackend]


class Waking:
    """The way to a device in steps, none of which begins once it is no longer worth it.

    Args:
        open_device: returns a device that is owned by this object from then on; takes seconds. Asks its argument, which
            is `go_on`, on the way, and raises NoDeviceError if the answer is no.
        go_on: whether another step is worth it.
        fail: told why there will be no device.
    """

    def __init__(self, open_device: OpenDevice, go_on: Callable[[], bool], fail: Callable[[str], None]) -> None:
        self._open_device, self._go_on, self._fail = open_device, go_on, fail
        self._threads: list[Thread] = []
        self.device: CudaBackend | None = None  # once it is open and prepared
        self.is_trying = False

    def wake(self, prepare: Callable[[CudaBackend], None]) -> None:
        """Begins to open the device."""
        self._begin(lambda: self._open(prepare))

    def begin_trial(
        self, device: CudaBackend, kind: str, sample: Sample, judge: Callable[[str, int, float], None]
    ) -> None:
        """Begins to compare the device with the processor.

        Args:
            kind: of the chunk.
            sample: the copy of a chunk.
            judge: told the kind, the raw bytes and the seconds that the device took, if it was right.
        """
        self.is_trying = True
        self._begin(lambda: self._try(device, kind, sample, judge))

    def close(self) -> None:
        """Waits for the step that is under way, and closes the device."""
        for thread in self._threads:
            thread.join()
        if self.device is not None:
            self.device.close()

    def _begin(self, work: Callable[[], None]) -> None:
        thread = Thread(target=work, name="dumont-device")
        try:
            thread.start()
        except RuntimeError:  # the machine allows no more threads
            self._fail("no thread is left for a device")
        else:
            self._threads.append(thread)

    def _open(self, prepare: Callable[[CudaBackend], None]) -> None:
        device: CudaBackend | None = None
        try:
            device = self._open_device(self._go_on)
            if self._go_on():
                prepare(device)
                if self._go_on():
                    device.device.load_kernels()
                    self.device, device = device, None
        except NoDeviceError:
            pass
        except Exception as error:  # of any type: from the driver, or its libraries
            self._fail(reason(error) if device is not None else f"no GPU: {reason(error)}")
        finally:
            if device is not None:
                device.close()

    def _try(self, device: CudaBackend, kind: str, sample: Sample, judge: Callable[[str, int, float], None]) -> None:
        try:
            seconds = try_device(sample, device, self._go_on)
            if seconds is not None:
                judge(kind, sample.size, seconds)
        except WrongBytesError:
            self._fail(f"{device.device.name} is not right: {kind} gave other bytes")
        except Exception as error:  # of any type: from the driver, or its libraries
            self._fail(reason(error))
        finally:
            self.is_trying = False


def reason(error: Exception) -> str:
    """Says why no device is used. Our own errors name the device; others come from the driver, or its libraries."""
    return str(error) if isinstance(error, DumontError) else f"cuda:0: {type(error).__name__}: {error}"
