"""`python -m lb`: a balancer configured by `CHROMA_CLUSTER_LB_*`, a TOML file and flags."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from pydantic import ValidationError

from lb.config import BalancerSettings
from lb.server import run_balancer


def main(arguments: list[str] | None = None) -> int:
    """Parse flags, load settings, run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lb", description="The balancer of a Chroma cluster.")
    parser.add_argument("--config", type=Path, help="TOML file")
    parser.add_argument("--listen", help="HOST:PORT that clients connect to")
    parser.add_argument("--node", action="append", metavar="ID=URL", help="a node; once for each")
    parser.add_argument("--consistency", choices=["linearizable", "session", "eventual"])
    parser.add_argument("--hold-ms", type=int, help="how long requests are held while no node can take them")
    parser.add_argument("--allow-insecure-listen", action="store_true", default=None)
    flags = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        settings = BalancerSettings.load(
            flags.config,
            listen=flags.listen,
            nodes=flags.node,
            consistency=flags.consistency,
            hold_ms=flags.hold_ms,
            allow_insecure_listen=flags.allow_insecure_listen,
        )
    except (ValidationError, OSError) as error:
        print(f"chroma-cluster lb: {error}", file=sys.stderr)
        return 2
    return run_balancer(settings)


if __name__ == "__main__":
    sys.exit(main())
