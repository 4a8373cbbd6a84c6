"""Spellings of one path by which a test of paths might be passed by."""

from __future__ import annotations


def spellings(path: str) -> list[str]:
    """What some reader may take for `path` (such as /cluster/status) and another not."""
    first, _, rest = path[1:].partition("/")
    tail = f"/{rest}" if rest else ""
    escaped = "".join(f"%{ord(character):02x}" for character in first)
    return [
        f"/%63{first[1:]}{tail}",
        f"/{first[:-1]}%{ord(first[-1]):02X}{tail}",
        f"/{escaped}{tail}",
        f"/{escaped.replace('%', '%25')}{tail}",
        f"/{escaped.replace('%', '%2525')}{tail}",
        f"/{first}%2f{rest}",
        f"/{first}%2F{rest}",
        f"/{first}%252f{rest}",
        f"/{first}%5c{rest}",
        f"/{first}\\{rest}",
        f"/\\{first}{tail}",
        f"/%2f{first}{tail}",
        f"//{first}{tail}",
        f"///{first}//{rest}",
        f"/./{first}{tail}",
        f"/%2e/{first}{tail}",
        f"/x/../{first}{tail}",
        f"/x/%2e%2e/{first}{tail}",
        f"/x%2f..%2f{first}{tail}",
        f"/api/v2/../../{first}{tail}",
        f"/api/v2/tenants/..;a=b/%2E./%2e%2E/{first}{tail}",
        f"/../{first}{tail}",
        f"/;x/{first}{tail}",
        f"/{first};x=y{tail}",
        f"/{first}%3bx{tail}",
        f"/{first.upper()}{tail}",
        f"/{first.title()}{tail}",
        f"/%43LUSTER{tail}",
        f"/{first}%00{tail}",
        f"/{first}%20{tail}",
        f"/{first}%3fx{tail}",
        f"/{first}/.{tail}",
        f"/{first}/x/..{tail}",
        f"/{first}/%2e{tail}",
    ]
