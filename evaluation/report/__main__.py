"""`python -m evaluation.report FOLDER [--out FILE] [--docs docs/evaluation.md]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m evaluation.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="where its runs were saved")
    parser.add_argument(
        "--out", type=Path, default=None, help="the HTML file, or a folder for it (FOLDER/report)"
    )
    parser.add_argument(
        "--docs", type=Path, default=None, help="a document whose generated parts are replaced"
    )
    options = parser.parse_args()
    # matplotlib takes a second to load; `--help` does not need it.
    from evaluation.report import build
    from evaluation.report.documents import write_documents

    try:
        if options.docs:
            for path in write_documents(options.folder, options.docs):
                print(path)
        else:
            out = options.out or options.folder / "report"
            page = build(options.folder, out, lambda text: print(f"\r\033[K{text}", end="", file=sys.stderr))
            print(file=sys.stderr)
            print(page)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
