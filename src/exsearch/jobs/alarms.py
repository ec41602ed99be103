"""Alarms ring while training runs: what looks wrong after a round is a line in the log.

What is wrong and what to try, `diagnosis` says. It stops nothing.
"""

from __future__ import annotations

import logging
from pathlib import Path

from exsearch.diagnosis.alarms import alarms
from exsearch.diagnosis.parts import read_parts
from exsearch.diagnosis.rounds import behaviour, rounds
from exsearch.errors import ExSearchError

logger = logging.getLogger(__name__)


def ring(folder: Path, stage: str) -> None:
    """Write what looks wrong after a round into the log, a line each.

    Args:
        folder: The folder of the run.
        stage: The name of the round's stage; nothing is said of one that is not the newest, which
            an earlier process of the run has told.
    """
    if stage != max((each.name for each in folder.glob("iteration-*")), default=stage):
        return
    try:
        parts = read_parts(folder)
        found = alarms(rounds(parts, [behaviour(part.samples) for part in parts], folder))
    except ExSearchError as error:  # training can go on without
        logger.warning("%s: alarms can't be looked for: %s", stage, error)
        return
    for alarm in found:
        if alarm.stage == stage:
            logger.warning("%s: %s, %s; %s", stage, alarm.name, alarm.says, alarm.remedy)
