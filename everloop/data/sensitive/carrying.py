"""What becomes of a tag when a column is made from another: pure rules, one for each operator.

Copies and expressions keep it; a join unites what its columns carry. A digest of a personal value is pseudonymous:
whoever has the value finds it again. A mean or a sum over enough rows tells of nobody; over fewer it tells of
somebody, and so it keeps the tag. Least, greatest and last are values of somebody at any number of rows. A value of
a special category stays what it is, whatever is done to it: only a person may declare otherwise.
"""

from everloop.core.grants import Target

PERSONAL = "personal"
"""Says who somebody is, or something about them."""
PSEUDONYMOUS = "pseudonymous"
"""Stands for a person, whom only somebody with more knowledge can name."""
SPECIAL = "special"
"""Of a special category: health, faith, origin, biometrics (GDPR, article 9)."""
AGGREGATED = "aggregated"
"""Made of the values of many people."""
LEAST_ROWS = 10
"""From how many rows on a mean counts as aggregated."""
_OF_MANY = frozenset({"mean", "sum", "count"})
_FADING = frozenset({PERSONAL, PSEUDONYMOUS})
OPEN = frozenset({AGGREGATED})
"""Tags that everybody may read who may read the asset."""

Tags = frozenset[str]


def carried(tags: Tags, operator: str, *, least: int = 0) -> Tags:
    """The tags of a column that `operator` makes from one that carries `tags`.

    `least` is how many rows are known to be behind every value; 0 says that nothing is known.
    """
    if operator == "hash":
        return frozenset(PSEUDONYMOUS if tag == PERSONAL else tag for tag in tags)
    if operator in _OF_MANY and least >= LEAST_ROWS:
        return frozenset(AGGREGATED if tag in _FADING else tag for tag in tags)
    return tags


def closed(tags: Tags) -> Tags:
    """The tags that a grant must reach before the values may be shown."""
    return tags - OPEN


def guarded(kind: str, name: str, environment: str, tags: Tags) -> Target:
    """The target of reading values with these tags."""
    return Target(kind, name, environment, closed(tags))
