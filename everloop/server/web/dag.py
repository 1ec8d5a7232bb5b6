"""Draws a directed acyclic graph as SVG, on the server: layers, barycentre ordering, smooth edges.

Method: the layered drawing of Sugiyama, Tagawa and Toda (1981): longest-path layers, dummy nodes on long
edges, a few barycentre sweeps against crossings. Good for the tens of nodes that one page shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

NODE_WIDTH = 170
NODE_HEIGHT = 46
GAP_X = 56
GAP_Y = 18
GAP_DOWN = 34
BEND_HEIGHT = 12
"""What an edge takes of a layer that it only passes through."""
_SWEEPS = 6


@dataclass(frozen=True, slots=True)
class Node:
    """One box: its label, a smaller line below, where a click leads, and a class for its colour."""

    id: str
    label: str
    note: str = ""
    href: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a node or a bend of an edge stands: its left upper corner in pixels."""

    x: int
    y: int


def layers_of(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Longest-path layer of each node, sources at 0. Edges of a cycle that point back are ignored."""
    incoming: dict[str, list[str]] = {node: [] for node in nodes}
    for start, end in edges:
        if start in incoming and end in incoming and start != end:
            incoming[end].append(start)
    depth: dict[str, int] = {}
    path: set[str] = set()

    def visit(node: str) -> int:
        if node in depth:
            return depth[node]
        path.add(node)
        depth[node] = 1 + max((visit(before) for before in incoming[node] if before not in path), default=-1)
        path.discard(node)
        return depth[node]

    for node in nodes:
        visit(node)
    return depth


def place(
    nodes: Sequence[str], edges: Sequence[tuple[str, str]], *, most: int = 0
) -> tuple[dict[str, Placed], dict[tuple[str, str], list[Placed]], bool]:
    """Positions of the nodes, for each edge the bends between its ends, and whether layers lie below each other.

    They do where there are more than `most` of them (0: never): side by side they would be wider than a page.
    """
    depth = layers_of(nodes, edges)
    chains: dict[tuple[str, str], list[str]] = {}
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in nodes:
        rows[depth[node]].append(node)
    links: list[tuple[str, str]] = []
    for start, end in dict.fromkeys(edges):
        if depth.get(start, 0) >= depth.get(end, 0):
            continue
        chain = [start]
        for layer in range(depth[start] + 1, depth[end]):
            bend = f"\0{start}\0{end}\0{layer}"
            rows[layer].append(bend)
            chain.append(bend)
        chain.append(end)
        chains[start, end] = chain
        links.extend(pairwise(chain))
    _untangle(rows, links)
    down = 0 < most < len(rows)
    spots = _spots(rows, down=down)
    placed = {node: spots[node] for node in nodes}
    bends = {edge: [spots[b] for b in chain[1:-1]] for edge, chain in chains.items()}
    return placed, bends, down


def _untangle(rows: list[list[str]], links: Sequence[tuple[str, str]]) -> None:
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for start, end in links:
        before.setdefault(end, []).append(start)
        after.setdefault(start, []).append(end)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        near = before if forward else after
        sequence = rows[1:] if forward else rows[-2::-1]
        position = {node: i for row in rows for i, node in enumerate(row)}
        for row in sequence:
            centre = {
                node: sum(position[n] for n in near[node]) / len(near[node]) if node in near else position[node]
                for node in row
            }
            row.sort(key=lambda node: centre[node])
            position.update({node: i for i, node in enumerate(row)})


def _spots(rows: Sequence[Sequence[str]], *, down: bool) -> dict[str, Placed]:
    extent = NODE_WIDTH if down else NODE_HEIGHT
    pitch = NODE_HEIGHT + GAP_DOWN if down else NODE_WIDTH + GAP_X
    extents = [sum(_extent(node, extent) + GAP_Y for node in row) - GAP_Y for row in rows]
    longest = max(extents, default=0)
    spots: dict[str, Placed] = {}
    for layer, row in enumerate(rows):
        across = (longest - extents[layer]) // 2
        for node in row:
            spots[node] = Placed(across, layer * pitch) if down else Placed(layer * pitch, across)
            across += _extent(node, extent) + GAP_Y
    return spots


def _extent(node: str, extent: int) -> int:
    return BEND_HEIGHT if node.startswith("\0") else extent


def svg(
    nodes: Sequence[Node], edges: Mapping[tuple[str, str], str] | Sequence[tuple[str, str]], *, most: int = 0
) -> str:
    """The drawing as an SVG element whose colours come from the page's style sheet.

    `edges` may map each edge to a title. Labels are escaped; links are only those given. More than `most` layers (0:
    any number of them) go from the top to the bottom.
    """
    titles = dict(edges) if isinstance(edges, Mapping) else dict.fromkeys(edges, "")
    placed, bends, down = place([n.id for n in nodes], list(titles), most=most)
    rightmost = [p.x + NODE_WIDTH for p in placed.values()]
    rightmost += [p.x + BEND_HEIGHT for stops in bends.values() for p in stops]
    width = max(rightmost, default=NODE_WIDTH) + 4
    lowest = [p.y + NODE_HEIGHT for p in placed.values()]
    lowest += [p.y + BEND_HEIGHT for stops in bends.values() for p in stops]
    height = max(lowest, default=0) + 4
    size = f'viewBox="-2 -2 {width} {height}" width="{width}" height="{height}"'
    parts = [f'<svg class="dag" {size} role="img" aria-label="graph of {len(nodes)} nodes">']
    drawn = _edge_down if down else _edge
    parts += [drawn(placed[a], bends[a, b], placed[b], titles[a, b]) for a, b in bends]
    parts += [_box(node, placed[node.id]) for node in nodes]
    return "".join([*parts, "</svg>"])


def _edge(start: Placed, through: Sequence[Placed], end: Placed, title: str) -> str:
    half = NODE_HEIGHT // 2
    stops = [(start.x + NODE_WIDTH, start.y + half)]
    for bend in through:
        middle = bend.y + BEND_HEIGHT // 2
        stops += [(bend.x, middle), (bend.x + NODE_WIDTH, middle)]
    stops.append((end.x, end.y + half))
    path = f"M{stops[0][0]} {stops[0][1]}"
    for (x0, y0), (x1, y1) in pairwise(stops):
        middle = (x0 + x1) // 2
        path += f"C{middle} {y0} {middle} {y1} {x1} {y1}"
    return _path(path, title)


def _edge_down(start: Placed, through: Sequence[Placed], end: Placed, title: str) -> str:
    half = NODE_WIDTH // 2
    stops = [(start.x + half, start.y + NODE_HEIGHT)]
    for bend in through:
        middle = bend.x + BEND_HEIGHT // 2
        stops += [(middle, bend.y), (middle, bend.y + NODE_HEIGHT)]
    stops.append((end.x + half, end.y))
    path = f"M{stops[0][0]} {stops[0][1]}"
    for (x0, y0), (x1, y1) in pairwise(stops):
        middle = (y0 + y1) // 2
        path += f"C{x0} {middle} {x1} {middle} {x1} {y1}"
    return _path(path, title)


def _path(path: str, title: str) -> str:
    hover = f"<title>{escape(title)}</title>" if title else ""
    return f'<path class="edge" d="{path}">{hover}</path>'


def _box(node: Node, spot: Placed) -> str:
    label, note = _cut(node.label, 22), _cut(node.note, 28)
    text = (
        f'<rect width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="8"/>'
        f'<text x="12" y="{20 if note else 28}">{escape(label)}</text>'
        + (f'<text class="note" x="12" y="36">{escape(note)}</text>' if note else "")
        + f"<title>{escape(node.label)} {escape(node.note)}</title>"
    )
    named = f'class="node {escape(node.kind)}" data-node="{escape(node.id)}"'
    body = f'<g {named} transform="translate({spot.x} {spot.y})">{text}</g>'
    return f'<a href="{escape(node.href)}">{body}</a>' if node.href else body


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
