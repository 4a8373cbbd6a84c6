"""Addresses that processes listen on; pure."""

from __future__ import annotations

import ipaddress


def split_address(address: str) -> tuple[str, int]:
    """`host:port` as (host, port); IPv6 hosts in brackets.

    Raises:
        ValueError: no host or no port in 0..65535.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"expected HOST:PORT, got {address!r}")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach `host`; a name other than localhost may be anything."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
