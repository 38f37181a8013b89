"""How a client reaches a server: options of the channel, retries, TLS and the bearer token."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

import grpc

from ragstone.errors import InvalidArgument

MAX_REPLY_BYTES: Final = 256 * 2**20
"""What a client takes in one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """Certificates, PEM-encoded. Without any, the roots of the machine verify the server.

    ``key`` and ``certificate`` are the client's own, where the server asks for them.
    """

    roots: bytes | None = None
    key: bytes | None = None
    certificate: bytes | None = None
    server_name: str | None = None
    """The name in the server's certificate, where it is not the one in the address."""

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC takes."""
        return grpc.ssl_channel_credentials(self.roots, self.key, self.certificate)


@dataclass(frozen=True, slots=True)
class Destination:
    """A server, and how it is spoken to; both clients are made from one."""

    address: str
    tls: TLS | None
    metadata: tuple[tuple[str, str], ...]
    timeout_s: float
    options: tuple[tuple[str, Any], ...]


def destination(address: str, *, token: str | None, tls: TLS | bool | None, timeout: float) -> Destination:
    """Check a client's arguments. Raises InvalidArgument naming the wrong one.

    ``address`` is HOST:PORT, where the host may be a name that resolves to several servers, or several
    IP:PORT, separated by commas. Calls go round all that answer.
    """
    if not timeout > 0:
        raise InvalidArgument.at("timeout", "must be above 0 seconds")
    secure = (TLS() if tls else None) if isinstance(tls, bool) else tls
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    options = _OPTIONS
    if secure is not None and secure.server_name:
        options = (*options, ("grpc.ssl_target_name_override", secure.server_name))
    return Destination(_target(address), secure, metadata, timeout, options)


def _target(address: str) -> str:
    """What gRPC calls one server, or several."""
    servers = [server.strip() for server in address.split(",")]
    if not all(servers):
        raise InvalidArgument.at("address", "must be HOST:PORT, or several, separated by commas")
    if len(servers) == 1:
        return address
    kinds = {_family(server) for server in servers}
    if len(kinds) > 1:
        raise InvalidArgument.at("address", "names IPv4 and IPv6 addresses; gRPC takes several of one kind")
    return f"{kinds.pop()}:{','.join(servers)}"


def _family(server: str) -> str:
    """``ipv4`` or ``ipv6``. Raises InvalidArgument for a name: gRPC resolves only one of them."""
    host = server.rpartition(":")[0].strip("[]")
    try:
        return f"ipv{ip_address(host).version}"
    except ValueError as exc:
        raise InvalidArgument.at(
            "address",
            f"{server!r} must be IP:PORT, as one of several; or give one name that resolves to all of them",
        ) from exc


SERVICE_CONFIG: Final = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        },
        # An import resumes by itself: only it knows what was acknowledged.
        {"name": [{"service": "ragstone.v1.Documents", "method": "ImportDocuments"}]},
        # Twice would be another rebuild, or back to where the rollback came from.
        {
            "name": [
                {"service": "ragstone.v1.Versions", "method": "CreateVersion"},
                {"service": "ragstone.v1.Versions", "method": "RollbackVersion"},
            ]
        },
    ],
    "loadBalancingConfig": [{"round_robin": {}}],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}
"""Only UNAVAILABLE is tried again, where twice is once: every write carries a request id."""

_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
    # The client refuses what is too large by itself, naming the field.
    ("grpc.max_send_message_length", -1),
    # A silent peer is noticed within 80 s; servers allow pings of this pace.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
