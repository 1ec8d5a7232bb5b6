"""A comparison in words: short lines for a terminal, Markdown for a review."""

from collections.abc import Iterator

from everloop.flows.why.values import Difference, Pair, Why, is_cause


def roots(found: Why) -> list[tuple[Pair, Difference]]:
    """The differences that can have made the others, nearest first; what came out and who made it are none."""
    told = [
        (pair, one)
        for pair in found.pairs
        if pair.root
        for one in pair.differences
        if one.matters != "no" and is_cause(one, made=bool(pair.step))
    ]
    sure = [(pair, one) for pair, one in told if one.matters == "yes"]
    return sure or told


def lines(found: Why) -> Iterator[str]:
    """For a terminal: what can matter, then everything, pair by pair."""
    if found.same:
        yield f"{found.old_label} and {found.new_label} are the same version."
        return
    yield f"{found.old_label} → {found.new_label}"
    chosen = roots(found)
    yield ""
    yield "What can have made the difference:" if chosen else "Nothing that was recorded can have made the difference."
    for pair, one in chosen:
        yield f"  {at(pair)}: {said(one)}"
        yield from (f"      {line}" for line in one.hunk.splitlines())
    yield ""
    yield "Everything that differs:"
    for pair in found.pairs:
        yield f"  {at(pair)} ({labels(pair)})" + (" root" if pair.root else "")
        yield from (f"      {mark(one)} {said(one)}" for one in pair.differences)
    yield _shared(found)


def markdown(found: Why) -> str:
    """The same as Markdown, with the hunks of code."""
    if found.same:
        return f"`{found.old_label}` and `{found.new_label}` are the same version.\n"
    out = [f"# {found.old_label} → {found.new_label}", "", "## What can have made the difference", ""]
    for pair, one in roots(found):
        out.append(f"- **{at(pair)}**: {_escaped(said(one))}")
        if one.hunk:
            fence = "`" * (3 + max((len(run) for run in one.hunk.split("\n") if set(run) == {"`"}), default=0))
            out += ["", f"  {fence}diff", *(f"  {line}" for line in one.hunk.splitlines()), f"  {fence}", ""]
    if out[-1] == "":
        out.append("Nothing that was recorded.")
    out += ["", "## Everything that differs", "", "| where | what | old | new | matters |", "|---|---|---|---|---|"]
    for pair in found.pairs:
        for one in pair.differences:
            cells = [
                at(pair),
                f"{one.factor} {one.name}",
                one.old,
                one.new,
                f"{one.matters}: {one.reason}".rstrip(": "),
            ]
            out.append("| " + " | ".join(_escaped(cell).replace("|", "\\|") or " " for cell in cells) + " |")
    out += ["", _shared(found), ""]
    return "\n".join(out)


def at(pair: Pair) -> str:
    """Where in the lineage a pair stands."""
    return " ← ".join(pair.path) if pair.path else pair.kind


def labels(pair: Pair) -> str:
    """Both versions, as people call them."""
    return " → ".join(one or "nothing" for one in (pair.old_label, pair.new_label))


def said(one: Difference) -> str:
    """A difference as one line."""
    if one.factor == "code":
        change = one.new or "changed"
        return f"code {one.name}: {change}" + (f" ({one.reason})" if one.reason not in ("", change) else "")
    values = f": {one.old or 'none'} → {one.new or 'none'}" if one.old or one.new else ""
    name = "" if one.name == one.factor else f" {one.name}"
    return f"{one.factor}{name}{values}" + (f" ({one.reason})" if one.reason else "")


def mark(one: Difference) -> str:
    """Whether it can matter, as one sign."""
    return {"yes": "!", "no": "·", "unknown": "?"}[one.matters]


def _shared(found: Why) -> str:
    return f"Shared versions of the lineage: {found.shared}. What led to those is the same, and was not looked at."


def _escaped(text: str) -> str:
    return text.replace("\n", " ").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
