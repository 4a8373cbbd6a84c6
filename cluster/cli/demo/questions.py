"""What the demo asks the cluster through the balancer: questions in plain language, and all it wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cluster.client import TextCollection

READ_BACK_PAGE: Final = 200

QUESTIONS: Final = (
    "What is the difference between break and continue in a loop?",
    "How do I compress a file with gzip?",
    "compute the mean and the median of some numbers",
    "open a web page in the browser",
    "turn a Python object into JSON text",
    "How do I send an email over SMTP?",
)


def best_answers(collection: TextCollection) -> list[tuple[str, list[tuple[str, str, float]]]]:
    """Each question with its best answers: id, first words, cosine similarity."""
    answer = collection.query(query_texts=list(QUESTIONS), n_results=3, include=["documents", "distances"])
    found: list[tuple[str, list[tuple[str, str, float]]]] = []
    documents: Any = answer["documents"]
    distances: Any = answer["distances"]
    for at, question in enumerate(QUESTIONS):
        hits = zip(answer["ids"][at], documents[at], distances[at], strict=True)
        # Unit vectors in l2 space, Chroma's default: the squared distance is 2 - 2 cos.
        found.append((question, [(key, words, 1 - distance / 2) for key, words, distance in hits]))
    return found


def read_back(collection: TextCollection, ids: list[str]) -> dict[str, str | None]:
    """What the cluster returns for the ids, through the balancer."""
    stored: dict[str, str | None] = {}
    for start in range(0, len(ids), READ_BACK_PAGE):
        answer = collection.get(ids=ids[start : start + READ_BACK_PAGE], include=["documents"])
        documents: Any = answer["documents"] or []
        stored.update(zip(answer["ids"], documents, strict=True))
    return stored
