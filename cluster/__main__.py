"""`python -m cluster` is `chroma-cluster`."""

from cluster.cli.app import main

if __name__ == "__main__":
    main()
