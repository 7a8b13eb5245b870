"""Streams last longer than the request that opened them, but not longer than its token or session."""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from starlette.requests import Request

CHECK_S = 5.0
"""After so many seconds it is looked again whether the caller is still let in, before anything more is sent."""
log = logging.getLogger(__name__)


async def while_let_in(request: Request, pieces: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces of an answer until the token or session that the request showed opens nothing any more."""
    checked_s = time.monotonic()
    async with aclosing(pieces):
        async for piece in pieces:
            if time.monotonic() - checked_s >= CHECK_S:
                if not await request.state.is_let_in():
                    log.info(
                        "a stream of %s ends, for what it was opened with is no longer valid", request.state.caller.name
                    )
                    return
                checked_s = time.monotonic()
            yield piece
