"""Who may use a server, and which sources it may open for them.

loopback by default     another address needs an API key
API key                 header `Authorization: Bearer KEY`, or the WebSocket subprotocol that browsers can send
origin                  a page of another site cannot use a visitor's access (browsers send `Origin`)
sources                 by scheme and address: nothing inside the server's own network, no files but below --media-root
"""

import dataclasses
import hmac
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from svlm_jax.errors import ConfigError, RequestError

SUBPROTOCOL = "openai-insecure-api-key."  # OpenAI's convention for browsers, which cannot set headers of a WebSocket
REALTIME = "realtime"  # the subprotocol that is agreed on
SCHEMES = ("http", "https", "rtsp", "rtsps", "synthetic")
Resolve = Callable[[str], Iterable[str]]

# The page loads nothing from elsewhere, is framed by nobody, and connects to its own server alone.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), display-capture=(self), microphone=(), geolocation=()",
}


def addresses(host: str) -> list[str]:
    """The addresses of a host by the system's resolver."""
    return sorted({info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})  # type: ignore[misc]


@dataclasses.dataclass(frozen=True)
class Access:
    """The rules of one server.

    Attributes:
      host: the address that it listens on.
      api_key: what clients must present; None = nothing, on loopback only.
      origins: other sites whose pages may use this server, such as "https://cameras.example.org".
      schemes: of sources that the server opens itself.
      private: whether those may lie in private, link-local or loopback networks (cameras usually do).
      media_root: folder whose files it may open; None = no files.
    """

    host: str = "127.0.0.1"
    api_key: str | None = None
    origins: tuple[str, ...] = ()
    schemes: tuple[str, ...] = SCHEMES
    private: bool = False
    media_root: Path | None = None
    resolve: Resolve = addresses

    def __post_init__(self) -> None:
        if self.api_key is not None and len(self.api_key) < 8:
            raise ConfigError("the API key is shorter than 8 characters: expected one that cannot be guessed")
        if self.api_key is None and not is_loopback(self.host):
            raise ConfigError(f"host {self.host} can be reached from other machines: expected an API key (--api-key)")

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Whether the request presents the key, compared in constant time. Without a key, everyone on this machine may."""
        if self.api_key is None:
            return True
        return any(hmac.compare_digest(key.encode(), self.api_key.encode()) for key in presented(headers))

    def trusts_origin(self, headers: Mapping[str, str]) -> bool:
        """Whether the request comes from no page at all, from this server's own page, or from an allowed site."""
        origin = headers.get("origin")
        if origin is None or origin in self.origins:
            return True
        host = headers.get("host", "")
        return urlsplit(origin).netloc == host and self._names_this_server(host)

    def _names_this_server(self, host: str) -> bool:
        """Without a key, only loopback names: else a site could point its own name at 127.0.0.1 (DNS rebinding)."""
        return self.api_key is not None or is_loopback(urlsplit(f"//{host}").hostname or "")

    def source(self, address: str) -> str:
        """What `open_source` may open for a client; RequestError for what it must not."""
        scheme, colon, rest = address.partition(":")
        if not colon or re.match(r"^[A-Za-z]:[\\/]", address):
            return str(self._file(address))
        scheme = scheme.lower()
        if scheme == "file":
            return str(self._file(re.sub(r"^//(localhost)?", "", rest)))
        if scheme not in self.schemes:
            raise refused(f"sources of {scheme}:// are not opened here: expected one of {', '.join(self.schemes)}")
        if scheme != "synthetic":
            self._check_host(address)
        return address

    def _file(self, name: str) -> Path:
        if self.media_root is None:
            raise refused("files are not opened here: expected a server started with --media-root")
        root = self.media_root.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise refused("the file lies outside of the folder that this server may open")
        if not path.is_file():
            raise RequestError("not_found", "there is no such file below the media folder", status=404, param="source")
        return path

    def _check_host(self, address: str) -> None:
        host = urlsplit(address).hostname
        if not host:
            raise refused("the address names no host")
        if self.private:
            return
        try:
            found = list(self.resolve(host))
        except OSError:
            raise refused(f"the host {host} is not known") from None
        if not found or any(not ipaddress.ip_address(ip.split("%")[0]).is_global for ip in found):
            raise refused(f"{host} is an address of a private network: expected a public one (--allow-private allows cameras)")


def presented(headers: Mapping[str, str]) -> list[str]:
    """The keys that a request presents: as a bearer token, or inside the WebSocket's list of subprotocols."""
    keys = []
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        keys.append(token.strip())
    for name in headers.get("sec-websocket-protocol", "").split(","):
        if name.strip().startswith(SUBPROTOCOL):
            keys.append(name.strip().removeprefix(SUBPROTOCOL))
    return keys


def is_loopback(host: str) -> bool:
    """Whether an address or name can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refused(sentence: str) -> RequestError:
    return RequestError("source_refused", sentence, status=403, param="source")
