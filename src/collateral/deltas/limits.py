"""Limits of what a delta's file holds."""

MOST_RANKS = (
    256  # of factors that are summed in a fixed order: more take more time than their bytes are worth
)
