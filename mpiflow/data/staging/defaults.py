"""default_staging: how files reach an executor that does not say."""

from __future__ import annotations

from mpiflow.data.staging.base import Staging
from mpiflow.data.staging.ftp import FTPSeparateTaskStaging
from mpiflow.data.staging.http import HTTPSeparateTaskStaging
from mpiflow.data.staging.noop import NoOpFileStaging
from mpiflow.data.staging.zip import ZipFileStaging

#: What ``storage_access=None`` of an executor stands for; shared by all of them.
default_staging: list[Staging] = [
    NoOpFileStaging(),
    FTPSeparateTaskStaging(),
    HTTPSeparateTaskStaging(),
    ZipFileStaging(),
]
