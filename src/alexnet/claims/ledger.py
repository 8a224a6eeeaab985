"""What the paper claims (C1 .. C39), and what reading notes and the 2012 program's logs say beyond it (N1 ..).

The texts are in ``ledger.toml``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files

from alexnet.core.config import from_json
from alexnet.core.errors import UsageError, printable

LEDGER = "ledger.toml"
"""Package data: one table a claim."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence that data, or a count, could prove wrong."""

    id: str
    """C1 .. C39: the paper. N1 ..: beyond the paper."""
    section: str
    """Section of the paper; for N.. "notes" or "2012 program"."""
    sentence: str
    """The claim in our words."""
    printed: str = ""
    """Its numbers as the paper, or the notes, print them; empty: none."""
    logged: str = ""
    """What the 2012 program's files show; empty: nothing."""
    decides: str = ""
    """Which arms, which measure and which data decide it."""
    untested: str = ""
    """Why no experiment of this package decides it; empty: one does, or what is printed does."""
    elsewhere: str = ""
    """What results of this project outside of the claims' experiments say of it, with their files; empty: nothing."""


def read_claims(text: str) -> tuple[Claim, ...]:
    """The claims of a ledger (TOML), in its order; line breaks within a text become spaces. Raises :class:`UsageError` naming
    the claim and the field if a field is unknown, missing or no text."""
    found = []
    for id, fields in tomllib.loads(text).items():
        joined = {name: " ".join(value.split()) if isinstance(value, str) else value for name, value in fields.items()}
        found.append(from_json(Claim, {"id": id, **joined}, f"{LEDGER}: {id}"))
    return tuple(found)


CLAIMS = read_claims(files("alexnet.claims").joinpath(LEDGER).read_text(encoding="utf-8"))


def find_claim(id: str) -> Claim:
    """The claim of this id, in capitals or not; an unknown one is a :class:`UsageError` that says which there are."""
    for claim in CLAIMS:
        if claim.id == id.upper():
            return claim
    paper, beyond = ([claim.id for claim in CLAIMS if claim.id.startswith(letter)] for letter in "CN")
    raise UsageError(
        f"unknown claim {printable(id)!r}; the claims are {paper[0]} to {paper[-1]} (the paper) and {beyond[0]} to "
        f"{beyond[-1]} (beyond it): see `alexnet claims list`"
    )
