"""The weather of a seed: always the same, within its bounds, and never only one thing."""

from __future__ import annotations

import itertools
from random import Random

from lab.mitm.faults import Weather
from lab.soak.weather import LONGEST_PAUSE, spells

FAULTS = ("loss", "duplicates", "reorder", "pause")


def test_the_same_seed_brings_the_same_weather() -> None:
    first = list(itertools.islice(spells(Random(5)), 100))
    assert first == list(itertools.islice(spells(Random(5)), 100))
    assert first != list(itertools.islice(spells(Random(6)), 100))


def test_within_bounds_and_all_of_it() -> None:
    seen = list(itertools.islice(spells(Random(1)), 1000))
    assert seen[0].weather == Weather()
    assert all(2 <= spell.seconds <= 8 for spell in seen)
    assert all(spell.weather.pause <= min(LONGEST_PAUSE, spell.seconds) for spell in seen)
    assert 0.04 < max(spell.weather.loss for spell in seen) <= 0.05
    calm = sum(spell.weather == Weather() for spell in seen)
    assert 200 < calm < 500
    for name in FAULTS:
        assert sum(getattr(spell.weather, name) > 0 for spell in seen) > 100, name


def test_three_minutes_have_every_fault() -> None:
    """The short version of CI must be able to show that each fault was real, whatever the seed."""
    for seed in range(200):
        passed, had = 0.0, set()
        for spell in spells(Random(seed)):
            passed += spell.seconds
            if passed > 180:
                break
            had |= {fault for fault in FAULTS if getattr(spell.weather, fault)}
        assert len(had) == 4, seed
