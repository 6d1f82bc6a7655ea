"""Clients behind a cable that can be cut without a word: a network namespace, joined to this machine by a veth pair."""

import ctypes
import os
import secrets
import subprocess
import sys
from pathlib import Path

_CLONE_NEWNET = 0x40000000


class NoCable(Exception):
    """This kernel, or whoever runs the test, allows no network namespaces."""


class FarAway:
    """`near` is this machine's address at the cable; a thread that calls `enter` makes its sockets at the other end.

    Entering raises NoCable.
    """

    def __init__(self) -> None:
        self._name = f"far{secrets.token_hex(4)}"
        net = f"198.18.{secrets.randbelow(256)}.{4 * secrets.randbelow(64)}"  # RFC 2544: for tests of networks
        begin, _, last = net.rpartition(".")
        self.near, self._far = f"{begin}.{int(last) + 1}", f"{begin}.{int(last) + 2}"

    def __enter__(self) -> "FarAway":
        here, there = f"{self._name}a", f"{self._name}b"
        try:
            _ip("netns", "add", self._name)
            _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self._name)
            _ip("addr", "add", f"{self.near}/30", "dev", here)
            _ip("link", "set", here, "up")
            _ip("-n", self._name, "addr", "add", f"{self._far}/30", "dev", there)
            _ip("-n", self._name, "link", "set", there, "up")
        except (OSError, subprocess.CalledProcessError) as problem:
            self.__exit__()
            raise NoCable(f"no network namespaces here: {getattr(problem, 'stderr', '') or problem}") from None
        return self

    def __exit__(self, *_: object) -> None:
        if sys.platform == "linux" and Path("/run/netns", self._name).exists():
            # the cable by name: the namespace lives on for minutes while its closed sockets wait for answers
            for words in (["link", "delete", f"{self._name}a"], ["netns", "delete", self._name]):
                subprocess.run(["ip", *words], check=False, capture_output=True)

    def enter(self) -> None:
        """Move the calling thread to the other end."""
        namespace = os.open(f"/run/netns/{self._name}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(namespace)

    def fall_silent(self) -> None:
        """From now on nothing comes from the other end, not even that something arrived."""
        _ip("-n", self._name, "route", "add", "blackhole", f"{self.near}/32")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
