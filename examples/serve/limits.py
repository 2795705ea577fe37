"""What a request may cost; each limit is an environment variable of the same name in capitals."""

import dataclasses
import os


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the service.

    Attributes:
        export: folder that `export` wrote.
        file: which ONNX file of it; empty: `encoder.onnx`, otherwise the only one.
        vectors: a Parquet file to search in; empty: none.
        file_bytes: of one upload.
        body_bytes: of one request.
        pixels: of one image once it is decoded, which a small file can make many.
        files: in one request.
        neighbours: in one answer of /search.
        seconds: from the first byte of a request to its answer.
        waiting: requests at a time, the others are refused at once.
        workers: images that are decoded and encoded at a time.
        types: of content.
    """

    export: str = "saved_models/handover"
    file: str = ""
    vectors: str = ""
    file_bytes: int = 10_000_000
    body_bytes: int = 50_000_000
    pixels: int = 25_000_000
    files: int = 32
    neighbours: int = 100
    seconds: float = 20.0
    waiting: int = 64
    workers: int = os.cpu_count() or 1
    types: tuple = ("image/jpeg", "image/png", "image/webp")

    @classmethod
    def from_environment(cls):
        """The limits that the environment sets, the others at their defaults."""
        given = {}
        for field in dataclasses.fields(cls):
            text = os.environ.get(field.name.upper())
            if text and field.name != "types":
                given[field.name] = type(field.default)(text)
        return cls(**given)


class BodyLimit:
    """Refuses a request whose body is larger, by its header or once that many bytes have come.

    Args:
        app: an ASGI application.
        most: bytes.
    """

    def __init__(self, app, most):
        self.app, self.most = app, most

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = dict(scope["headers"]).get(b"content-length", b"0")
        count = int(told) if told.isdigit() else 0
        if count > self.most:
            await self._refuse(send)
            return
        count, answered = 0, False

        async def counted():
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self.most:
                raise TooLarge
            return message

        async def noted(message):
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except TooLarge:
            if not answered:
                await self._refuse(send)

    async def _refuse(self, send):
        text = f'{{"detail":"a request may have {self.most} bytes"}}'.encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": text})


class TooLarge(Exception):
    """More bytes have come than a request may have."""
