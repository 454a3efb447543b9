"""The options of a server, checked once."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from pathlib import Path

from asmk_engine.errors import InputError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
LEAST_TOKEN = 8
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ServeOptions:
    """How a server runs.

    Parameters
    ----------
    host : str, default "127.0.0.1"
        Address to listen at. Others than the loopback need a token, or `no_auth`.
    port : int, default 8765
        0 takes a free one.
    token : str, optional
        What a client must know, of at least 8 characters.
    no_auth : bool, default False
        Allow everybody who can reach the address.
    allowed_hosts : tuple of str
        Names by which a browser may call the server, besides the loopback and `host`.
    behind_proxy : bool, default False
        Take the address of a client from the header of a proxy on this machine.
    writable : bool, default False
        Allow photographs to be added and deleted.
    images_roots : tuple of Path
        Folders of the indexed photographs; by default those recorded in the index.
    follow_links : bool, default False
        Show photographs that are links to files outside of these folders.
    workers : int, default 1
        Processes that describe photographs, and as many that shrink them.
    seconds : float, default 60
        Time for one photograph.
    memory : int, default 4096
        MiB that a process may take for one photograph.
    upload : int, default 64
        MiB of one request at most.
    waiting : int, default 32
        Photographs, and searches, that may wait; more are refused for some seconds.
    rate : float, default 50
        Requests a second of one client, after the first few; thumbnails do not count.

    Raises
    ------
    InputError
        If a value is out of its range, or another address than the loopback has neither token nor `no_auth`.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    no_auth: bool = False
    allowed_hosts: tuple[str, ...] = ()
    behind_proxy: bool = False
    writable: bool = False
    images_roots: tuple[Path, ...] = ()
    follow_links: bool = False
    workers: int = 1
    seconds: float = 60.0
    memory: int = 4096
    upload: int = 64
    waiting: int = 32
    rate: float = 50.0

    def __post_init__(self) -> None:
        ranges = (("port", 0, 65535), ("workers", 1, 256), ("seconds", 1, 3600), ("memory", 512, 1 << 20),
                  ("upload", 1, 4096), ("waiting", 1, 10000), ("rate", 1, 1e6))  # fmt: skip
        for name, least, most in ranges:
            value = getattr(self, name)
            if not (math.isfinite(value) and least <= value <= most):
                raise InputError(f"{name} is {value}; give {least} to {most:g}")
        if self.token is not None and not (len(self.token) >= LEAST_TOKEN and self.token.isascii()):
            raise InputError(f"the token is too short or not ASCII; give {LEAST_TOKEN} letters and digits or more")
        if not self.host.strip("[] "):
            raise InputError("the host is empty; give an address such as 127.0.0.1, or 0.0.0.0 for all")
        if self.token and self.no_auth:
            raise InputError("a token and no_auth exclude each other; give one of them")
        if not (self.is_loopback or self.token or self.no_auth):
            raise InputError(
                f"{self.host}: others could reach this address and see the photographs; give --token, or say --no-auth"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> frozenset[str]:
        """The names, in lower case and without a port, that a request may give as its host."""
        own = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return frozenset(name.lower() for name in (*LOOPBACK, own, *self.allowed_hosts))

    @property
    def most_bytes(self) -> int:
        """The bytes of a request at most."""
        return self.upload * MEBIBYTE
