"""A language model behind an OpenAI-compatible endpoint: it curates transcripts and judges answers."""

import asyncio
import dataclasses
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

import httpx2

from svlm_jax.errors import ConfigError, EndpointError
from svlm_jax.host.json_files import parse
from svlm_jax.host.redact import mask
from svlm_jax.host.retry import Again, Backoff, GaveUp, Retry

logger = logging.getLogger(__name__)

RETRY = (408, 429, 500, 502, 503, 504)  # HTTP: the same request may succeed later
LONGEST_WAIT = 60.0  # s; a server that asks for more is asked again after this
LARGEST = 4 << 20  # bytes of a reply; answers have some thousands


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server: requests go to `url`/chat/completions.

    Attributes:
      url: e.g. "http://localhost:8000/v1". model: its name there.
      key: sent as bearer token; the environment's OPENAI_API_KEY if not given, nothing if that is absent.
      timeout: seconds for a whole answer, however slowly it drips in. tries: of one request. pause: seconds before the second
        try, doubled each time.

    A redirect is not followed: the key is for this address alone. Answers are asked for at temperature 0, unless the model
    refuses it because it chooses its own.
    """

    url: str
    model: str
    key: str | None = dataclasses.field(default=None, repr=False)
    timeout: float = 120.0
    tries: int = 4
    pause: float = 1.0
    _own_temperature: threading.Event = dataclasses.field(
        default_factory=threading.Event, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"endpoint {mask(self.url)!r}: expected an address that begins with http:// or https://")

    def ask(self, system: str, user: str) -> str:
        """The answer to a conversation of two messages; EndpointError when there is none after all tries."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        backoff = Backoff(first=self.pause, longest=LONGEST_WAIT, jitter=0.0, attempts=self.tries - 1)
        name = mask(self.url)
        retry = Retry(backoff, on_failure=lambda why, failures, delay: logger.info("%s: %s; trying again", name, why))
        try:
            return retry(lambda: self._post(messages))
        except GaveUp as error:
            raise EndpointError(f"{name} gave no answer in {error.failures} tries: {error}.") from None

    def _post(self, messages: list[dict[str, str]]) -> str:
        given = {} if self._own_temperature.is_set() else {"temperature": 0}
        body = {"model": self.model, "messages": messages, **given}
        key = self.key or os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        problem = ""
        try:
            status, reason, after, reply = _request(f"{self.url.rstrip('/')}/chat/completions", headers, body, self.timeout)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:  # no connection, none in time, or one that broke
            problem = str(error) or type(error).__name__
        if problem:  # raised out here, so that an error which may quote the address is not even the context
            raise Again(problem)
        if status in RETRY:
            raise Again(f"HTTP {status}", min(_seconds(after), LONGEST_WAIT))
        if status == 400 and b"temperature" in reply and not self._own_temperature.is_set():
            self._own_temperature.set()
            raise Again("its temperature cannot be chosen")
        if 300 <= status < 400:
            raise EndpointError(f"{mask(self.url)} answers with a redirect (HTTP {status}): expected the final address.")
        if status != 200:
            raise EndpointError(f"{mask(self.url)} refused the request: HTTP {status} {reason}.")
        return _content(reply)


def _request(url: str, headers: Mapping[str, str], body: Any, timeout: float) -> tuple[int, str, str | None, bytes]:
    """Status, reason, Retry-After and body of a reply. TimeoutError when all of it takes longer, OSError when it is too long.

    In a thread with an event loop of its own, because only a loop can end a reply that drips in byte by byte, and a notebook
    has a running one already.
    """
    found: list[tuple[int, str, str | None, bytes]] = []
    failed: list[BaseException] = []

    async def post() -> None:
        async with (
            asyncio.timeout(timeout),
            httpx2.AsyncClient(follow_redirects=False, timeout=timeout) as client,
            client.stream("POST", url, headers=headers, json=body) as reply,
        ):
            content = b""
            async for part in reply.aiter_bytes():
                content += part
                if len(content) > LARGEST:
                    raise OSError(f"the reply has more than {LARGEST >> 20} MiB")
            found.append((reply.status_code, reply.reason_phrase, reply.headers.get("Retry-After"), content))

    def work() -> None:
        try:
            asyncio.run(post())
        except TimeoutError:
            failed.append(TimeoutError(f"timed out after {timeout:g} s"))
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="svlm-endpoint", daemon=True)  # Ctrl-C does not wait for it
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def _content(reply: bytes) -> str:
    try:
        content = parse(reply, "the reply", EndpointError)["choices"][0]["message"]["content"]
    except (EndpointError, LookupError, TypeError):
        content = None
    if not isinstance(content, str):  # null, where a model refuses
        raise Again("the answer is not a chat completion")
    return content


def _seconds(text: str | None) -> float:
    """What a Retry-After header says in seconds; 0 when it says nothing, or a date."""
    return float(text) if text and text.isdecimal() and len(text) < 10 else 0.0
