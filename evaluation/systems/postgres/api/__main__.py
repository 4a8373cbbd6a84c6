"""One API server of the Postgres system: `python -m evaluation.systems.postgres.api --config FILE`.

Replys carry `X-Chroma-Node`, the Postgres server that read or committed, and `X-Chroma-Api`, this process.
"""

from evaluation.systems.postgres import serving
from evaluation.systems.postgres.api.server import serve
from evaluation.systems.postgres.settings import ApiSettings

if __name__ == "__main__":
    serving.run(__doc__, ApiSettings, serve)
