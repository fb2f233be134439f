"""Chooses the upload that a publish goes on with:

- The upload that this user's own record names (`upload_state`), unless another process holds the record.
- An empty upload that began when, by this user's own record, an upload was about to begin: a kill came before its id
  was known.
- An upload of the same object that this user has no record of, from another machine or with a lost record: if no part
  of it came for a day, by the server's own clock. Younger uploads are left alone, and named: somebody may be at them.
- Otherwise a new upload.

Parts are compared before they are used, so a mistake here costs time, and never a wrong object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from dumont_gpu.errors import DumontError, SnapshotNotFoundError
from dumont_gpu.sizes import format_size
from dumont_gpu.storage.retry import TransientError
from dumont_gpu.storage.s3_requests import Part, S3Requests
from dumont_gpu.storage.upload_state import UploadState, hold

_BEGINNING: Final = 60.0  # seconds in which a server answers that an upload has begun, or nearly always
_DEAD_SECONDS: Final = 24 * 3600.0  # a part of the largest size, 5 GiB, takes less on a link of 1 Mbit/s


class UnfinishedUpload:
    """The upload of one object: found or begun by `find`, remembered until `forget`.

    Args:
        requests: about the object.
        place: address of the object, without secrets.
    """

    def __init__(self, requests: S3Requests, place: str) -> None:
        self._requests, self._place = requests, place
        self._state: UploadState | None = hold(place)
        self.id = ""  # percent-encoded
        self.parts: dict[int, Part] = {}  # that the server had when the upload was found

    @property
    def plain_id(self) -> str:
        """The id without percent-encoding, as other tools take it."""
        return unquote(self.id)

    @property
    def remembered(self) -> bool:
        """Whether the same job, started again by the same user, will find this upload."""
        return self._state is not None and self._state.upload_id == self.id

    def find(self, *, discard: bool) -> list[str]:
        """Finds an upload or begins a new upload; returns notes for the user.

        Args:
            discard: take this user's unfinished upload away, and begin anew.
        """
        said: list[str] = []
        own = self._state.upload_id if self._state is not None else ""
        if own:
            said += self._take_away(own) if discard else self._go_on(own)
        if not self.id and not discard:
            said += self._look_for_others(own)
        if not self.id:
            self._remember(lambda state: state.intend(self._place, self._requests.server_time))
            self.id = self._requests.begin()
        self._remember(lambda state: state.write(self._place, self.id))
        return said

    def forget(self) -> None:
        """Forgets the upload: it is completed, or aborted."""
        if self._state is not None:
            self._state.forget()

    def release(self) -> None:
        """Lets other processes go on with the upload."""
        if self._state is not None:
            if self._state.upload_id:
                self._state.close()
            else:
                self._state.forget()

    def _remember(self, write: Callable[[UploadState], None]) -> None:
        if self._state is None:
            return
        try:
            write(self._state)
        except OSError:  # a full disk: as if there were no place for records
            self._state.forget()
            self._state = None

    def _go_on(self, upload_id: str) -> list[str]:
        try:
            self.parts = self._requests.parts(upload_id)
        except SnapshotNotFoundError:  # completed, aborted, or no such bucket, as `begin` will find out
            return []
        self.id = upload_id
        if not self.parts:
            return []
        size = format_size(sum(part.size for part in self.parts.values()))
        return [f"goes on with an upload that was not finished: {size} are at the server"]

    def _was_intended(self, begun: float) -> bool:
        """Whether this user's record says that an upload was about to begin then; a server's Date has whole seconds."""
        intended = self._state.intended if self._state is not None else 0.0
        return bool(intended) and -1 <= begun - intended <= _BEGINNING

    def _take_away(self, upload_id: str) -> list[str]:
        if self._requests.abort(upload_id):
            return [f"an upload that was not finished was taken away: upload id {unquote(upload_id)}"]
        return [f"an upload that was not finished could not be taken away: upload id {unquote(upload_id)}"]

    def _look_for_others(self, own: str) -> list[str]:
        """Looks for uploads without a record. Credentials that may publish need not be allowed to list uploads."""
        said: list[str] = []
        try:
            for upload in self._requests.uploads():
                if upload.id == own:
                    continue
                parts = self._requests.parts(upload.id)
                last = max((upload.begun, *(part.modified for part in parts.values())))
                dead = self._requests.server_time - last > _DEAD_SECONDS
                if not self.id and (dead or (not parts and self._was_intended(upload.begun))):
                    said += self._go_on(upload.id)
                else:
                    said.append(
                        f"another upload of this object is not finished, and left alone: upload id {unquote(upload.id)}"
                    )
        except (DumontError, TransientError):
            pass
        return said
