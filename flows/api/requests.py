"""What a request brings: pictures, read within bounds, and refusals that say what helps."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from flows.api.settings import ApiSettings

READ_SECONDS = 60  # for a whole request
BODIES = 4  # that may be held together, of the largest size
MB = 1 << 20
AS_PARTS = "Send each picture as a part named file, with a file name"


class Refusal(Exception):
    """An answer other than 200. seen: what was; remedy: what helps, as a sentence."""

    def __init__(self, status: int, seen: str, remedy: str, headers: Mapping[str, str] | None = None):
        super().__init__(seen)
        self.status, self.seen, self.remedy, self.headers = status, seen, remedy, headers


@dataclass(frozen=True)
class Picture:
    """A picture file of a request. id: the part's file name, None where the body is the picture."""

    id: str | None
    data: bytes


class _Parser(MultiPartParser):
    """Keeps parts in memory, for whole bodies are bounded; Starlette would write large ones to temporary files."""

    spool_max_size = 1 << 62


@dataclass
class Intake:
    """Reads requests; knows how many bytes of all of them are held."""

    settings: ApiSettings
    held: int = field(default=0, init=False)

    async def read(self, request: Request) -> list[Picture]:
        """The pictures of a request. Its bytes count as held until `let_go`; they are in `request.state.held`.

        Raises: Refusal for what is too large, too many, too slow, or no form.
        """
        request.state.held = 0
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            async with asyncio.timeout(READ_SECONDS):
                if kind == "multipart/form-data":
                    return await self._parts(request)
                return [Picture(None, b"".join([chunk async for chunk in self._stream(request)]))]
        except TimeoutError:
            seen = f"the request was not complete after {READ_SECONDS} s"
            raise Refusal(408, seen, "Send smaller pictures, or use a faster network", {"Connection": "close"})
        except ClientDisconnect:
            raise Refusal(400, "the client went away", "Send the request again")

    def let_go(self, request: Request) -> None:
        """The request has its answer."""
        self.held -= request.state.held
        request.state.held = 0

    async def _stream(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The body as it comes. What is too large is read to its end, so that the client hears why, but not kept."""
        most, refusal, read = self.settings.max_body_mb * MB, None, 0
        async for chunk in request.stream():
            read += len(chunk)
            if read > most:
                seen = f"the request has more than {self.settings.max_body_mb} MiB"
                refusal = Refusal(413, seen, "Send fewer or smaller pictures, or raise api.max_body_mb")
            elif not refusal and self.held + len(chunk) > BODIES * most:
                refusal = Refusal(
                    503, "the requests at work take all of the memory that they may", "Try again", {"Retry-After": "1"}
                )
            if refusal:
                self.let_go(request)
            elif chunk:
                self.held += len(chunk)
                request.state.held += len(chunk)
                yield chunk
        if refusal:
            raise refusal

    async def _parts(self, request: Request) -> list[Picture]:
        most = self.settings.max_pictures
        charset = parse_options_header(request.headers.get("content-type"))[1].get(b"charset", b"utf-8")
        if charset.lower() not in (b"utf-8", b"utf8", b"us-ascii"):
            seen = f"the form's charset is {charset.decode('latin-1')[:80]!r}"
            raise Refusal(422, seen, "Write the names of the parts in UTF-8, and leave the charset out")
        # One more than is taken, so that too many are told from a form that is none.
        parser = _Parser(request.headers, self._stream(request), max_files=most + 1, max_fields=most)
        try:
            form = await parser.parse()
        except (MultiPartException, FormParserError) as error:
            if "Too many files" in str(error):
                raise self._too_many(f"more than {most}")
            raise Refusal(422, f"the form does not parse ({error})", "Send each picture as a part named file")
        files: list[UploadFile] = []
        for name, part in form.multi_items():
            if isinstance(part, UploadFile) and name == "file":
                files.append(part)
            elif isinstance(part, UploadFile) or name == "file":  # a picture that would get no answer
                seen = "has no file name" if name == "file" else "is a file, and is not named file"
                seen = f"the part {name[:80]!r} of the form {seen}"
                raise Refusal(422, seen, AS_PARTS)
        pictures = [Picture(part.filename or None, await part.read()) for part in files]
        await form.close()
        if not pictures:
            raise Refusal(422, "the form has no part named file with a file name", AS_PARTS)
        if len(pictures) > most:
            raise self._too_many(str(len(pictures)))
        return pictures

    def _too_many(self, count: str) -> Refusal:
        remedy = f"Send at most {self.settings.max_pictures}, or raise api.max_pictures"
        return Refusal(422, f"{count} pictures in the request", remedy)
