"""The two figures of the reader's page as SVG: reliability, and risk by coverage. Both axes are shares."""

from collections.abc import Sequence

SIDE, MARGIN = 320, 44
_STYLE = "font: 12px sans-serif; fill: #555"


def share_figure(
    points: Sequence[tuple[float, float]], across: str, up: str, *, with_diagonal: bool = False
) -> str:
    """A line through `points`, both coordinates in 0–1, with a marker at each; `across` and `up` name the axes."""
    size = SIDE + 2 * MARGIN
    places = [(_x(share), _y(height)) for share, height in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#1f6feb"/>' for x, y in places)
    lines = "".join(_grid(tenth / 10) for tenth in range(0, 11, 2))
    diagonal = (
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#999" stroke-dasharray="4 4"/>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" role="img" '
        f'aria-label="{up} by {across}"><rect width="{size}" height="{size}" fill="#fff"/>{lines}'
        f"{diagonal if with_diagonal else ''}"
        f'<polyline points="{path}" fill="none" stroke="#1f6feb" stroke-width="2"/>{marks}'
        f'<text x="{size / 2}" y="{size - 8}" text-anchor="middle" style="{_STYLE}">{across}</text>'
        f'<text x="12" y="{size / 2}" text-anchor="middle" style="{_STYLE}" '
        f'transform="rotate(-90 12 {size / 2})">{up}</text></svg>\n'
    )


def _grid(share: float) -> str:
    x, y = _x(share), _y(share)
    return (
        f'<line x1="{x}" y1="{_y(0)}" x2="{x}" y2="{_y(1)}" stroke="#eee"/>'
        f'<line x1="{_x(0)}" y1="{y}" x2="{_x(1)}" y2="{y}" stroke="#eee"/>'
        f'<text x="{x}" y="{_y(0) + 16}" text-anchor="middle" style="{_STYLE}">{share:.1f}</text>'
        f'<text x="{_x(0) - 6}" y="{y + 4}" text-anchor="end" style="{_STYLE}">{share:.1f}</text>'
    )


def _x(share: float) -> float:
    return round(MARGIN + share * SIDE, 1)


def _y(share: float) -> float:
    return round(MARGIN + (1 - share) * SIDE, 1)
