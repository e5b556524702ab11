"""The claims ledger: each statement of the source documents as an experiment with a computed verdict."""

from importlib import import_module
from pkgutil import iter_modules

from .base import (
    CLAIMS,
    SOURCES,
    VERDICTS,
    Claim,
    Outcome,
    Result,
    claim,
    find,
    folder,
    keep,
    measure,
    recorded,
    state,
    training,
)

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

# By chapter, so that every list walks the book.
for _id in sorted(CLAIMS, key=lambda claim_id: CLAIMS[claim_id].chapter):
    CLAIMS[_id] = CLAIMS.pop(_id)

__all__ = [
    "CLAIMS",
    "SOURCES",
    "VERDICTS",
    "Claim",
    "Outcome",
    "Result",
    "claim",
    "find",
    "folder",
    "keep",
    "measure",
    "recorded",
    "state",
    "training",
]
