"""Who may ask: names of the host, origins, the token, the rate; and what browsers are told to refuse."""

from __future__ import annotations

import hashlib
import hmac
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from urllib.parse import urlsplit

from asmk_engine.serve.options import ServeOptions
from asmk_engine.serve.refusals import Refusal

OPEN_PATHS = ("/", "/api", "/login", "/health")
STATIC = "/static/"
THUMBNAILS = ("/thumbnails/", "/uploads/", "/pictures/", STATIC)
BURST_SECONDS = 4.0
MOST_CLIENTS = 10_000
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; font-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


class Access:
    """The rules of one server."""

    def __init__(self, options: ServeOptions) -> None:
        self._options, self._hosts = options, frozenset(map(host_of, options.hosts))
        self._rates = Rates(options.rate)

    def check(self, method: str, path: str, headers: dict[str, str], client: str) -> None:
        """Raise Refusal unless a request may be answered.

        headers  by names in lower case
        client   its address
        """
        self.check_host(headers)
        self.check_origin(method, headers)
        is_known = path in OPEN_PATHS or path.startswith(STATIC) or self.has_token(headers)
        if not (is_known and method == "GET" and path.startswith(THUMBNAILS)):  # guesses of the token count as well
            self._rates.check(client)
        if not is_known:
            raise Refusal(401, "sign in with the token that the server was started with")

    def check_host(self, headers: dict[str, str]) -> None:
        """Refuse names that are not ours: a page elsewhere could give its own name our address (DNS rebinding)."""
        host = host_of(headers.get("host", ""))
        if host not in self._hosts:
            raise Refusal(421, f"the server is not called {host[:100]!r}; allow this name with --allow-host")

    def check_origin(self, method: str, headers: dict[str, str]) -> None:
        """Refuse what a page of another site sends or embeds."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and _netloc(origin) != headers.get("host", "").lower():
            raise Refusal(403, "requests from pages of other sites are refused")
        is_visit = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site in ("cross-site", "same-site") and not is_visit:
            raise Refusal(403, "requests from pages of other sites are refused")

    def has_token(self, headers: dict[str, str]) -> bool:
        """Return whether the token is in the header `Authorization: Bearer` or as the cookie of the page, if needed."""
        if self._options.token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.knows(given.strip()):
            return True
        return any(_equal(value, self.cookie) for value in self._cookies(headers.get("cookie", "")))

    def knows(self, given: str) -> bool:
        """Return whether this is the token; takes the same time for every wrong one."""
        return self._options.token is not None and _equal(given, self._options.token)

    @property
    def cookie(self) -> str:
        """What the page keeps instead of the token."""
        return self._derived(b"cookie of the page")

    @property
    def cookie_name(self) -> str:
        """The name of the cookie; servers at other ports share the cookies of this host, so each has its own name."""
        return f"asmk_engine_{self._derived(b'name of the cookie')[:12]}"

    def _derived(self, what: bytes) -> str:
        return hmac.new((self._options.token or "").encode(), what, hashlib.sha256).hexdigest()

    def _cookies(self, header: str) -> Iterable[str]:
        """Yield the values of our cookie."""
        for part in header.split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie_name:
                yield value


class Rates:
    """A bucket of requests for each client, which fills at `rate` a second and holds those of some seconds."""

    def __init__(self, rate: float) -> None:
        self._rate, self._most = rate, max(1.0, rate * BURST_SECONDS)
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, client: str, now: float | None = None) -> None:
        """Take a request from the bucket of a client; raises Refusal 429 if it is empty."""
        now = time.monotonic() if now is None else now
        with self._lock:
            left, last = self._known.pop(client, (self._most, now))
            left = min(self._most, left + (now - last) * self._rate)
            self._known[client] = (left - 1 if left >= 1 else left), now
            while len(self._known) > MOST_CLIENTS:
                self._known.popitem(last=False)
        if left < 1:
            seconds = math.ceil((1 - left) / self._rate)
            raise Refusal(429, f"more than {self._rate:g} requests a second; try again in {seconds} s", seconds)


def host_of(header: str) -> str:
    """Return the name in a Host header without its port, in lower case."""
    name, colon, port = header.strip().lower().rpartition(":")
    return name if colon and (port.isdigit() or not port) else header.strip().lower()


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _netloc(origin: str) -> str:
    """Return host and port of an origin in lower case, empty if it has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
