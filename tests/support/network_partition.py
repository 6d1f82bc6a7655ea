"""Clients behind a link that can silently drop packets: a network namespace, joined to this machine by a veth pair."""

import ctypes
import os
import secrets
import subprocess
import sys
from pathlib import Path

_CLONE_NEWNET = 0x40000000


class NetworkNamespaceUnavailable(Exception):
    """This kernel or this user may not create network namespaces."""


class NetworkNamespace:
    """`local_address` is this machine's address on the link; a thread that calls `enter_namespace` makes its sockets at
    the other end.

    Entering raises NetworkNamespaceUnavailable.
    """

    def __init__(self) -> None:
        self._name = f"far{secrets.token_hex(4)}"
        network = f"198.18.{secrets.randbelow(256)}.{4 * secrets.randbelow(64)}"  # RFC 2544: reserved for network tests
        prefix, _, last = network.rpartition(".")
        self.local_address, self._remote_address = f"{prefix}.{int(last) + 1}", f"{prefix}.{int(last) + 2}"

    def __enter__(self) -> "NetworkNamespace":
        local_link, remote_link = f"{self._name}a", f"{self._name}b"
        try:
            _run_ip("netns", "add", self._name)
            _run_ip("link", "add", local_link, "type", "veth", "peer", "name", remote_link, "netns", self._name)
            _run_ip("addr", "add", f"{self.local_address}/30", "dev", local_link)
            _run_ip("link", "set", local_link, "up")
            _run_ip("-n", self._name, "addr", "add", f"{self._remote_address}/30", "dev", remote_link)
            _run_ip("-n", self._name, "link", "set", remote_link, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            raise NetworkNamespaceUnavailable(
                f"no network namespaces here: {getattr(error, 'stderr', '') or error}"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        if sys.platform == "linux" and Path("/run/netns", self._name).exists():
            # delete the link by name: the namespace lives on for minutes while its closed sockets wait for ACKs
            for args in (["link", "delete", f"{self._name}a"], ["netns", "delete", self._name]):
                subprocess.run(["ip", *args], check=False, capture_output=True)

    def enter_namespace(self) -> None:
        """Move the calling thread to the other end."""
        namespace = os.open(f"/run/netns/{self._name}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(namespace)

    def drop_packets(self) -> None:
        """From now on drop every packet from the other end, even ACKs."""
        _run_ip("-n", self._name, "route", "add", "blackhole", f"{self.local_address}/32")


def _run_ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)
