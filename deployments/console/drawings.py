"""Drawings of plans: each strategy as boxes, as many devices as there really are.

Rules:
- A box is a stage. It is filled from below with the colours of its devices, as a bar
  is from the left; nothing has begun in one that is empty.
- Canary and direct rise by the share of the fleet that has the image by then; regions
  are as high as they are large; the halves of blue-green stand side by side with the
  switch between them; batches lie in as many rows as may be in flight at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from deployments.choices import Strategy

WIDTH: Final = 640.0
HEIGHT: Final = 120.0
GAP: Final = 6.0
LABEL: Final = 16.0
# Boxes that can still be told apart; what is beyond is one more.
MAX_BOXES: Final = 24
MAX_BATCHES: Final = 48


@dataclass(frozen=True, slots=True)
class DrawnStage:
    """What is drawn of a stage.

    Attributes:
        parts: how many of its devices have each colour, from below.
    """

    number: int
    name: str
    size: int
    boundary: int
    parts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle, in units of the drawing."""

    x: float
    y: float
    width: float
    height: float
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Box:
    """A stage as it is drawn, with its words below and its number of devices."""

    frame: Rect
    fill: tuple[Rect, ...]
    label: str
    title: str
    is_labelled: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plan as boxes.

    Attributes:
        switch: where the line between the halves of blue-green stands; None elsewhere.
        says: the same in a sentence.
        left_out: how many stages are not drawn.
    """

    boxes: tuple[Box, ...]
    says: str
    left_out: int = 0
    switch: float | None = None
    is_switched: bool = False
    width: float = WIDTH
    height: float = HEIGHT + LABEL


def draw_plan(
    strategy: str,
    stages: Sequence[DrawnStage],
    *,
    in_flight: int = 1,
    is_switched: bool = False,
) -> Drawing | None:
    """Draw the stages of a plan; None where there are none.

    Args:
        in_flight: rows in which batches lie.
        is_switched: green serves already.
    """
    if not stages:
        return None
    is_rolling = strategy == Strategy.ROLLING
    shown = stages[: MAX_BATCHES if is_rolling else MAX_BOXES]
    frames = _lanes(shown, in_flight) if is_rolling else _columns(strategy, shown)
    is_blue_green = strategy == Strategy.BLUE_GREEN and len(shown) > 1
    return Drawing(
        boxes=tuple(
            _box(stage, frame, len(shown), is_rolling=is_rolling)
            for stage, frame in zip(shown, frames, strict=True)
        ),
        says="; ".join(f"{each.name}: {each.size:,}" for each in shown),
        left_out=len(stages) - len(shown),
        switch=WIDTH / 2 if is_blue_green else None,
        is_switched=is_switched,
    )


def parts_of(
    segments: Sequence[Mapping[str, object]],
) -> tuple[tuple[str, int], ...]:
    """Return the colours of a stage's bar with their numbers of devices."""
    return tuple(
        (str(each["tone"]), int(str(each["number"])))
        for each in segments
        if each["tone"] != "grey"
    )


def _columns(strategy: str, stages: Sequence[DrawnStage]) -> list[Rect]:
    """Stand the stages beside each other, as high as what they stand for."""
    is_cumulative = strategy in (Strategy.CANARY, Strategy.DIRECT)
    sizes = [each.boundary if is_cumulative else each.size for each in stages]
    most = max(sizes) or 1
    width = WIDTH / len(stages)
    frames = []
    for number, size in enumerate(sizes):
        height = max(4.0, HEIGHT * size / most)
        frames.append(
            Rect(number * width + GAP / 2, HEIGHT - height, width - GAP, height)
        )
    return frames


def _lanes(stages: Sequence[DrawnStage], in_flight: int) -> list[Rect]:
    """Lay batches in rows: those of a column are in flight together."""
    rows = max(1, min(in_flight, len(stages), 6))
    columns = -(-len(stages) // rows)
    width, height = WIDTH / columns, (HEIGHT + LABEL) / rows
    return [
        Rect(
            number // rows * width + GAP / 2,
            number % rows * height + GAP / 2,
            width - GAP,
            height - GAP,
        )
        for number in range(len(stages))
    ]


def _box(stage: DrawnStage, frame: Rect, count: int, *, is_rolling: bool) -> Box:
    fill = []
    bottom = frame.y + frame.height
    for tone, number in stage.parts:
        height = frame.height * number / stage.size if stage.size else 0.0
        bottom -= height
        fill.append(Rect(frame.x, bottom, frame.width, height, tone))
    return Box(
        frame=frame,
        fill=tuple(fill),
        label=f"{stage.name}: {stage.size:,}",
        title=f"{stage.number}. {stage.name}, {stage.size:,}",
        is_labelled=not is_rolling and count <= 6,
    )
