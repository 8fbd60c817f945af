"""NoOpFileStaging: files that are where they are needed."""

from __future__ import annotations

from mpiflow.data.staging.base import Staging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mpiflow.data.files import File


class NoOpFileStaging(Staging):
    """Takes plain paths and ``file:`` URLs, and does nothing: every worker sees the same disk.

    Examples
    --------
    >>> from mpiflow import File
    >>> NoOpFileStaging().can_stage_in(File("/scratch/in.txt"))
    True
    """

    def can_stage_in(self, file: File) -> bool:
        """Whether it is a path."""
        return file.scheme == "file"

    def can_stage_out(self, file: File) -> bool:
        """Whether it is a path."""
        return file.scheme == "file"
