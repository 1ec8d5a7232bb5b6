"""Two distributions above each other, as small as a line of text: training and what came since."""

from collections.abc import Sequence

from markupsafe import Markup

_TOPS = (2, 12)
_NAMES = ("training", "online")


def strip(pair: Sequence[Sequence[float]]) -> Markup:
    """Box plots of two lists of five quantiles (5, 25, 50, 75 and 95 %) over one axis; the upper is training's."""
    low, high = min(part[0] for part in pair), max(part[-1] for part in pair)
    span = (high - low) or 1.0
    drawn, told = [], []
    for name, top, part in zip(_NAMES, _TOPS, pair, strict=True):
        at = [100 * (value - low) / span if high > low else 50.0 for value in part]
        drawn.append(
            f'<g class="{name}"><line x1="{at[0]:.2f}%" x2="{at[4]:.2f}%" y1="{top + 4}" y2="{top + 4}"/>'
            f'<rect x="{at[1]:.2f}%" width="{max(at[3] - at[1], 0.5):.2f}%" y="{top}" height="8"/>'
            f'<line class="middle" x1="{at[2]:.2f}%" x2="{at[2]:.2f}%" y1="{top}" y2="{top + 8}"/></g>'
        )
        told.append(f"{name}: half between {part[1]:.4g} and {part[3]:.4g}, median {part[2]:.4g}")
    said = "; ".join(told)
    return Markup(  # noqa: S704 - numbers and our own words only
        f'<svg class="strip" role="img" aria-label="{said}" height="22"><title>{said}</title>{"".join(drawn)}</svg>'
    )
