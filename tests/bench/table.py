# SPDX-License-Identifier: Apache-2.0
"""The table for people."""

from metrics import METRICS


def _cell(results, metric, peer):
    middle = results.median(metric.key, peer)
    if middle is None:
        return "-"
    text = f"{middle:.{metric.digits}f}"
    return f"{text} ±{results.spread(metric.key, peer) * 100:.0f}%"


def _ratio(results, metric, name, value):
    own = results.median(metric.key, "postern")
    if not metric.compared or not own or not value or min(own, value) < 0:
        return "-"
    return f"{own / value:.2f}" if name is None else f"{own / value:.2f} {name}"


def rows(results):
    """Head and lines as lists of cells; a line for each number that someone has or should have."""
    head = ["", "unit", *results.peers, "/envoy", "/best other"]
    lines = []
    for metric in METRICS:
        if not any(results.samples(metric.key, p) or results.gap(metric.key, p) for p in results.peers):
            continue
        best, value = results.best_other(metric, but=("envoy",))
        lines.append([metric.title, metric.unit,
                      *[_cell(results, metric, peer) for peer in results.peers],
                      _ratio(results, metric, None, results.median(metric.key, "envoy")),
                      _ratio(results, metric, best or "", value)])
    return head, lines


def gaps(results):
    """A line for each reason why something is missing."""
    reasons = {}
    for peer in results.peers:
        for metric in METRICS:
            reason = results.gap(metric.key, peer)
            if reason:
                reasons.setdefault((peer, reason), []).append(metric.title)
    every = sum(1 for m in METRICS if any(results.samples(m.key, p) for p in results.peers))
    lines = []
    for (peer, reason), titles in reasons.items():
        what = "everything" if len(titles) >= every else "; ".join(titles)
        lines.append(f"{peer}: {what}: {reason}")
    return lines


def aligned(head, lines):
    """The cells as text, the first two columns to the left and the rest to the right."""
    every = [head, *lines]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    out = []
    for row in every:
        cells = [cell.ljust(width) if i < 2 else cell.rjust(width)
                 for i, (cell, width) in enumerate(zip(row, widths))]
        out.append("  ".join(cells).rstrip())
    out.insert(1, "-" * max(len(line) for line in out))
    return "\n".join(out)


def render(heading, results, verdicts):
    """The whole page."""
    parts = ["\n".join(f"{key}: {value}" for key, value in heading.items()), aligned(*rows(results)),
             "median ±half of the range over the rounds; ratios are postern's, below 1 is better "
             "(above 1 where the unit is a rate);\nbest other: of those but Envoy; the column none "
             "has the bare latency where the others have what they add;\nfloor: one recv, the "
             "records' arithmetic, one send"]
    missing = gaps(results)
    if missing:
        parts.append("gaps\n" + "\n".join("  " + line for line in missing))
    width = max(len(verdict.goal) for verdict in verdicts)
    parts.append("goals\n" + "\n".join(
        f"  {verdict.goal.ljust(width)}  {verdict.outcome.ljust(12)}  {verdict.numbers}".rstrip()
        for verdict in verdicts))
    return "\n\n".join(parts)
