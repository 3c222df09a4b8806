"""A language model behind an OpenAI-compatible endpoint: it curates transcripts and judges answers."""

import dataclasses
import http.client
import itertools
import json
import logging
import os
import threading
import time
import urllib.error
import urllib.request

from svlm_jax.errors import ConfigError, EndpointError

logger = logging.getLogger(__name__)

RETRY = (408, 429, 500, 502, 503, 504)  # HTTP: the same request may succeed later
LONGEST_WAIT = 60.0  # s; a server that asks for more is asked again after this


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server: requests go to `url`/chat/completions.

    Attributes:
      url: e.g. "http://localhost:8000/v1". model: its name there.
      key: sent as bearer token; the environment's OPENAI_API_KEY if not given, nothing if that is absent.
      timeout: seconds for an answer. tries: of one request. pause: seconds before the second try, doubled each time.

    Answers are asked for at temperature 0, unless the model refuses it because it chooses its own.
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
            raise ConfigError(f"endpoint {self.url!r}: expected an address that begins with http:// or https://")

    def ask(self, system: str, user: str) -> str:
        """The answer to a conversation of two messages; EndpointError when there is none after all tries."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        for attempt in itertools.count(1):
            given = {} if self._own_temperature.is_set() else {"temperature": 0}
            try:
                return self._post(json.dumps({"model": self.model, "messages": messages, **given}).encode())
            except _Temporary as error:
                if attempt >= self.tries:
                    raise EndpointError(f"{self.url} gave no answer in {attempt} tries: {error}.") from None
                logger.info("%s: %s; trying again", self.url, error)
                time.sleep(max(self.pause * 2 ** (attempt - 1), min(error.wait, LONGEST_WAIT)))
        raise AssertionError("unreachable")

    def _post(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json"}
        key = self.key or os.environ.get("OPENAI_API_KEY")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                answer = json.load(response)
            content = answer["choices"][0]["message"]["content"]
            if not isinstance(content, str):  # null, where a model refuses
                raise TypeError
            return content
        except urllib.error.HTTPError as error:
            with error:
                if error.code in RETRY:
                    raise _Temporary(f"HTTP {error.code}", _seconds(error.headers.get("Retry-After"))) from None
                if error.code == 400 and b"temperature" in error.read() and not self._own_temperature.is_set():
                    self._own_temperature.set()
                    raise _Temporary("its temperature cannot be chosen") from None
                raise EndpointError(f"{self.url} refused the request: HTTP {error.code} {error.reason}.") from None
        except (OSError, http.client.HTTPException) as error:  # no connection, none in time, or one that broke
            raise _Temporary(str(getattr(error, "reason", error)) or type(error).__name__) from None
        except (ValueError, LookupError, TypeError):
            raise _Temporary("the answer is not a chat completion") from None


class _Temporary(Exception):
    """A request that may succeed when it is made again, after `wait` seconds."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


def _seconds(text: str | None) -> float:
    """What a Retry-After header says in seconds; 0 when it says nothing, or a date."""
    return float(text) if text and text.isdecimal() else 0.0
