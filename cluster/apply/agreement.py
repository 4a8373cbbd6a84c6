"""The log entry in which the cluster agrees to refuse a write, and how it is found in the log ahead; pure."""

from __future__ import annotations

from typing import Final

from cluster.state.commands import Proposal, RefuseEntry, decode_group, encode_group, encode_proposal

#: Begins the request id of every agreement. Clients' request ids begin otherwise (`cluster.service.writes`).
_REQUEST: Final = "s:refuse:"
_MARK: Final = _REQUEST.encode()


def encode_agreement(time_ms: int, agreement: RefuseEntry) -> bytes:
    """Payload of the log entry with this agreement alone. A second one about the same write repeats it."""
    request_id = f"{_REQUEST}{agreement.index}/{agreement.position}/{agreement.part}"
    return encode_group(time_ms, [encode_proposal(Proposal(request_id, b"", agreement))])


def agreements_in(payload: bytes, index: int) -> list[RefuseEntry]:
    """The agreements in the payload of log entry `index`; what cannot be read has none that count here.

    Cheap where there is none, for every entry is looked through before what precedes it is applied.
    """
    if _MARK not in payload:
        return []
    try:
        group = decode_group(payload)
    except Exception:
        return []  # whoever applies it says so
    commands = (proposal.command for proposal in group.proposals)
    return [command for command in commands if isinstance(command, RefuseEntry) and command.index < index]
