"""Whether a line of measurements is flat: pure functions over (seconds, value).

The slope is Theil and Sen's, the median over the slopes of all pairs: a spike, such
as the moment of a checkpoint, moves it no more than any other point, while
a leak moves every pair.
"""

import statistics

# Before that, caches, pools and the allocator's arenas fill up to their bounds.
WARM_UP_SHARE = 1 / 3
HOUR_S = 3600
MIB = 1 << 20
# A slope per hour that was seen for less is mostly noise times a large number.
SLOPE_SECONDS_MIN = 300
POINTS_MIN = 8


def settled(points, warm_up_share=WARM_UP_SHARE):
    """The points behind the warm-up."""
    if not points:
        return []
    first, last = points[0][0], points[-1][0]
    begin = first + (last - first) * warm_up_share
    return [point for point in points if point[0] >= begin]


def slope(points):
    """Units per second; 0 if nothing can be told."""
    pairs = [
        (after[1] - before[1]) / (after[0] - before[0])
        for index, before in enumerate(points)
        for after in points[index + 1 :]
        if after[0] > before[0]
    ]
    return statistics.median(pairs) if pairs else 0.0


def judge(points, growth_max_percent, slope_max_per_hour=None):
    """A verdict about one line; `flat` is false if it grows, or if too little was seen.

    `slope_max_per_hour` is in the line's own unit, None for no such limit.
    """
    points = settled(points)
    if len(points) < POINTS_MIN:
        return {"flat": False, "why": f"only {len(points)} measurements after the warm-up"}
    seconds = points[-1][0] - points[0][0]
    middle = statistics.median(value for _, value in points)
    per_hour = slope(points) * HOUR_S
    growth = per_hour * seconds / HOUR_S
    percent = 100 * growth / middle if middle else (0.0 if growth == 0 else float("inf"))
    broken = []
    if percent > growth_max_percent:
        broken.append(f"grew by {percent:.1f} %")
    if slope_max_per_hour is not None and seconds >= SLOPE_SECONDS_MIN and per_hour > slope_max_per_hour:
        broken.append("grew too fast")
    return {
        "flat": not broken, "why": ", ".join(broken), "seconds": seconds, "median": middle,
        "per_hour": per_hour, "percent": percent, "max": max(value for _, value in points),
    }  # fmt: skip
