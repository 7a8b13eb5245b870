"""The path in front of all pages and routes, where a proxy serves other things beside this server."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RootPath:
    """ASGI middleware that takes the root path off each request, and puts it before what answers redirect to.

    It makes no difference whether a proxy removes the root path or passes it on, and requests that come without a
    proxy, as those of runs, may have it or not.

    Args:
        app: the application behind it, which knows nothing of the root path.
        root_path: begins with a slash and has none at its end.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app, self._root = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_root(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [(name, self._placed(name, value)) for name, value in message["headers"]]
            await send(message)

        await self._app(self._stripped(scope), receive, send_with_root)

    def _stripped(self, scope: Scope) -> Scope:
        path = "/" + scope["path"].lstrip("/")  # nginx makes two slashes of one where its `location` ends with none
        if path != self._root and not path.startswith(f"{self._root}/"):
            return {**scope, "path": path}
        return {**scope, "path": path.removeprefix(self._root) or "/"}

    def _placed(self, name: bytes, value: bytes) -> bytes:
        return self._root.encode() + value if name.lower() == b"location" and value.startswith(b"/") else value
