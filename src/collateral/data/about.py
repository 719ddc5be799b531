"""Where a data set comes from, whose work it is, and on what terms."""

from dataclasses import dataclass

UNCLEAR = "unclear: "


@dataclass(frozen=True)
class About:
    """Licence and citation of the data set that a loader reads.

    Attributes:
        title: name of the data set, and of the forms that are read.
        licence: as its source states it; begins with `unclear: ` and says why where no source does.
        citation: authors, title, venue, year; several works are separated by `; `.
        home: address of the data or of the project that gives it out.
        probes: of a fact in the usual file (the edit, paraphrases, neighborhood, portability), to estimate costs by.
    """

    title: str
    licence: str
    citation: str
    home: str
    probes: int = 5
