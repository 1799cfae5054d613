"""Object stores (s3://, gs:// and what else Beam's filesystems reach): reading with the job's options.

A process has one client, which its threads share. Credentials come from the environment, as the store's own tools take
them.
"""

import io
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO

from tfrecords.errors import MISSED, AoiError, install, refuse

THREADS = 32  # that read at once: from a store most of the time is spent waiting
TRIES, PAUSE_SECONDS = 4, 0.5  # of one file; the pause doubles
GONE = {"NoSuchKey", "NoSuchBucket", "404", "NotFound"}
NO = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
CHANGED = {"412", "PreconditionFailed"}
EMPTY = {"416", "InvalidRange"}  # of a file without a byte no part can be read
TAIL = 1 << 16  # bytes at the end of a file, with which a zip's list of entries ends, or all of a short one
EXTRAS = {"s3": "s3", "gs": "gcs"}

_given: tuple[str, ...] = ()


def is_remote(path: str) -> bool:
    """Whether a path names a filesystem (gs://, s3://, hdfs://) rather than this machine."""
    return "://" in path


def holds_secret(path: str) -> bool:
    """Whether a URL names more than a place: a user, a password, or a signature."""
    _, mark, rest = path.partition("://")
    return bool(mark) and ("@" in rest.partition("/")[0] or "?" in rest)


def use(options: Sequence[str]) -> None:
    """From now on this process opens stores with these options of Beam, such as --s3_endpoint_url."""
    global _given
    if tuple(options) != _given:
        _given = tuple(options)
        filesystems.cache_clear()
        _s3.cache_clear()


@cache
def filesystems() -> Any:
    """Beam's FileSystems, with the options of `use`."""
    from apache_beam.io.filesystems import FileSystems  # a second to import, and only remote paths need it
    from apache_beam.options.pipeline_options import PipelineOptions

    FileSystems.set_options(PipelineOptions(list(_given)))
    return FileSystems


def exists(path: str) -> bool:
    """Whether there is a file or a folder at `path`. Raises: AoiError where the store does not answer."""
    try:
        return _answered(path, lambda: _exists_s3(path) if _is_s3(path) else _exists_any(path))
    except FileNotFoundError:  # not even the bucket
        return False


def names_below(folder: str) -> list[str]:
    """Names of all files in a folder and below it, relative to it. Raises: AoiError where the store does not answer."""
    return list(sizes_below(folder))


def sizes_below(folder: str) -> dict[str, int]:
    """Bytes of all files in a folder and below it, by their names relative to it. Raises: see `names_below`."""
    prefix = f"{folder.rstrip('/')}/"
    found = _answered(folder, lambda: list(_below_s3(prefix) if _is_s3(folder) else _below_any(prefix)))
    return {path.removeprefix(prefix): size for path, size in found}


def read(path: str) -> bytes:
    """The whole file.

    Raises:
        FileNotFoundError: there is none.
        AoiError: the store refuses or does not answer, after several tries. That is no fault of the file.
    """
    return _answered(path, lambda: _read_s3(path) if _is_s3(path) else _read_any(path))


def has_parts(path: str) -> bool:
    """Whether a file can be read as `Parts`."""
    return _is_s3(path)


class Parts(io.RawIOBase):
    """A file in S3 of which only the parts that are read are transferred. Equal while the file has not changed.

    Raises: as `read`; AoiError too once the file has changed.
    """

    def __init__(self, path: str):
        super().__init__()
        self._path, self._at, self._own = path, 0, threading.local()
        got = self._get(f"-{TAIL}")
        tail, self._version = got["Body"], got["ETag"]
        self._size = int(got["ContentRange"].rpartition("/")[2]) if "ContentRange" in got else len(tail)
        self._tail = self._size - len(tail), tail

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parts) and (self._path, self._version) == (other._path, other._version)

    def __hash__(self) -> int:
        return hash((self._path, self._version))

    @contextmanager
    def holding(self, start: int, stop: int) -> Iterator[None]:
        """Meanwhile this thread reads these bytes without a request, for which others would have to wait."""
        self._own.part = start, self._bytes(start, min(stop, self._size))
        try:
            yield
        finally:
            del self._own.part

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._at + size, self._size)
        start, self._at = self._at, max(self._at, stop)
        for first, held in (self._tail, getattr(self._own, "part", self._tail)):
            if first <= start and stop <= first + len(held):
                return held[start - first : stop - first]
        return self._bytes(start, stop)

    def _bytes(self, start: int, stop: int) -> bytes:
        return self._get(f"{start}-{stop - 1}", IfMatch=self._version)["Body"] if start < stop else b""

    def _get(self, span: str, **given: str) -> dict[str, Any]:
        bucket, key = _place(self._path)

        def ask() -> dict[str, Any]:
            try:
                got = _s3().get_object(Bucket=bucket, Key=key, Range=f"bytes={span}", **given)
            except Exception as error:
                if _code(error) in EMPTY:
                    return {"Body": b"", "ETag": ""}
                raise
            return {**got, "Body": got["Body"].read()}

        found: dict[str, Any] = _answered(self._path, ask)
        return found


def write(path: str, file: BinaryIO) -> None:
    """Puts a file, open for reading, into the store; it appears there whole or not at all.

    Raises: AoiError where the store refuses or does not answer, after several tries.
    """

    def ask() -> None:
        file.seek(0)
        _write_s3(path, file) if _is_s3(path) else _write_any(path, file)

    try:
        _answered(path, ask, "written")
    except FileNotFoundError as error:
        raise _refused(path, error, "written") from error


def _answered(path: str, ask: Callable[[], Any], done: str = "read") -> Any:
    for attempt in range(1, TRIES + 1):
        try:
            return ask()
        except Exception as error:
            if _is_gone(error):
                raise FileNotFoundError(f"there is no {path}") from error
            if attempt == TRIES or not _may_pass(error):
                raise _refused(path, error, done) from error
        time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))


# --- S3: Beam itself makes a client each time it opens a file ---------------------------------------------------


def _is_s3(path: str) -> bool:
    return path.startswith("s3://")


def _place(path: str) -> tuple[str, str]:
    """Bucket and key."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return bucket, key


def _exists_s3(path: str) -> bool:
    bucket, key = _place(path)
    for prefix in (key, f"{key.rstrip('/')}/"):  # of the keys that begin with its own, a file's is the first
        found = _s3().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("Contents", ())
        if any(item["Key"] == key or prefix.endswith("/") for item in found):
            return True
    return False


def _below_s3(prefix: str) -> Iterator[tuple[str, int]]:
    bucket, key = _place(prefix)
    for page in _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
        yield from ((f"s3://{bucket}/{item['Key']}", item["Size"]) for item in page.get("Contents", ()))


def _read_s3(path: str) -> bytes:
    bucket, key = _place(path)
    data: bytes = _s3().get_object(Bucket=bucket, Key=key)["Body"].read()
    return data


def _write_s3(path: str, file: BinaryIO) -> None:
    bucket, key = _place(path)
    _s3().put_object(Bucket=bucket, Key=key, Body=file)  # one request: nothing is left of one that is cut off


@cache
def _s3() -> Any:
    """The process' client, with Beam's options."""
    import boto3
    from apache_beam.options.pipeline_options import PipelineOptions, S3Options
    from botocore.config import Config

    options = PipelineOptions(list(_given)).view_as(S3Options)
    return boto3.session.Session().client(
        "s3",
        region_name=options.s3_region_name,
        api_version=options.s3_api_version,
        use_ssl=not options.s3_disable_ssl,
        verify=options.s3_verify,
        endpoint_url=options.s3_endpoint_url,
        config=Config(
            max_pool_connections=2 * THREADS,
            connect_timeout=10,
            retries={"max_attempts": 2},
            request_checksum_calculation="when_required",  # which not every store of this kind knows
        ),
    )


# --- All other stores, by Beam's filesystems --------------------------------------------------------------------


def _exists_any(path: str) -> bool:
    inside = f"{path.rstrip('/')}/**"
    return filesystems().exists(path) or bool(filesystems().match([inside], limits=[1])[0].metadata_list)


def _below_any(prefix: str) -> Iterator[tuple[str, int]]:
    yield from ((file.path, file.size_in_bytes) for file in filesystems().match([f"{prefix}**"])[0].metadata_list)


def _read_any(path: str) -> bytes:
    with filesystems().open(path) as file:
        return file.read()


def _write_any(path: str, file: BinaryIO) -> None:
    aside = f"{path}.{uuid.uuid4().hex}.tmp"  # a file that is cut off appears in some stores, under its name
    with filesystems().create(aside, "application/octet-stream") as target:
        shutil.copyfileobj(file, target)
    filesystems().rename([aside], [path])


# --- What went wrong --------------------------------------------------------------------------------------------


def _code(error: BaseException) -> str:
    """What a store calls an error: botocore's and Beam's own say it in different places."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    return str(getattr(error, "code", "") or "")


def _causes(error: BaseException) -> list[BaseException]:
    """The error, and those that Beam's error gathers, by path."""
    details = getattr(error, "exception_details", None)
    inner = details.values() if isinstance(details, dict) else ()
    return [error, *(deeper for one in inner if isinstance(one, BaseException) for deeper in _causes(one))]


def _is_gone(error: Exception) -> bool:
    return any(isinstance(one, FileNotFoundError) or _code(one) in GONE for one in _causes(error))


def _may_pass(error: Exception) -> bool:
    """Whether another try may help: not where rights or packages are missing."""
    return not any(
        _is_lacking(one) or type(one).__name__.endswith("CredentialsError") or _code(one) in NO | CHANGED
        for one in _causes(error)
    )


def _is_lacking(error: BaseException) -> bool:
    """Whether a package is missing, which Beam says as a ValueError."""
    return isinstance(error, ImportError) or (isinstance(error, ValueError) and "dependency" in str(error))


def _refused(path: str, error: Exception, done: str) -> AoiError:
    last = _causes(error)[-1]
    if _code(last) in CHANGED:
        remedy = "Run again while no other program writes there"
        return refuse(path, "the file changed while it was being read", remedy, exit_code=MISSED)
    said = str(last).strip().splitlines()[-1:] or [type(last).__name__]
    seen = f"the store can't be {done} ({said[0][:200]})"
    if _is_lacking(last) and (extra := EXTRAS.get(path.partition("://")[0])):
        return refuse(path, seen, f"Install what it needs here and on every worker: {install(extra)}")
    remedy = "Check the store's address and the credentials in the environment, here and on the workers, and run again"
    return refuse(path, seen, remedy, exit_code=MISSED)
