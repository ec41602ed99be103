"""Agreement says how far judges agree beyond what chance would give: Krippendorff's alpha.

It knows nothing of what was judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from nltk.metrics.agreement import AnnotationTask


def alpha(verdicts: Iterable[tuple[str, str, str]]) -> tuple[float | None, int]:
    """Krippendorff's alpha for nominal values; items may lack some judges.

    Args:
        verdicts: Triples of judge, item and value.

    Returns:
        Alpha: 1 where all agree, 0 as by chance; None where it is not defined, because no item has
        two values or all values are the same. And the number of items with two values or more.
    """
    by_item: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for triple in verdicts:
        by_item[triple[1]].append(triple)
    paired = [triple for own in by_item.values() if len(own) > 1 for triple in own]
    items = len({item for _, item, _ in paired})
    if len({value for _, _, value in paired}) < 2:
        return None, items
    return float(AnnotationTask(data=paired).alpha()), items
