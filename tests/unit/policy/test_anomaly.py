"""The backups with findings, and the everyday ones without."""

from dataclasses import replace
from typing import Any

import pytest

from turku.policy import anomaly
from turku.policy.anomaly import AnomalyThresholds, RunStats

MIB = 1024 * 1024
FIGURES = RunStats(
    files_before=1000, files=1000, size_bytes_before=100 * MIB, size_bytes=100 * MIB, transferred_bytes=0
)


def figures(*, created: int = 0, rewritten: int = 0, deleted: int = 0, **changes: Any) -> RunStats:
    """A source of 1000 files of which so many changed, wholly."""
    sent = created + rewritten
    return replace(
        FIGURES,
        **{
            "files": 1000 + created - deleted,
            "created": created,
            "transferred": sent,
            "transferred_bytes": sent * 100_000,
            "literal_bytes": sent * 100_000,
            **changes,
        },
    )


def test_a_first_backup_never_is() -> None:
    assert anomaly.findings(RunStats(files_before=0, files=0)) == ()
    assert anomaly.findings(RunStats(files_before=0, files=5000, created=5000, transferred=5000)) == ()


@pytest.mark.parametrize(
    "everyday",
    [
        figures(),
        figures(created=20_000),
        # An upgrade of a system: packages replaced, some files gone.
        figures(created=100, rewritten=100, deleted=100),
        figures(rewritten=240),
        figures(deleted=240),
        # One large file is gone.
        figures(deleted=1, size_bytes=5 * MIB),
        # A directory with four in ten files was moved: nothing has a new suffix.
        figures(created=400, deleted=400),
        # Files were packed, and those that they were made of stay.
        figures(created=500, renamed=500, suffix=".gz"),
    ],
)
def test_everyday_changes_are_not(everyday: RunStats) -> None:
    assert anomaly.findings(everyday) == ()


@pytest.mark.parametrize(
    ("attack", "finding"),
    [
        (figures(deleted=1000), "empty"),
        (figures(deleted=600), "60% of the files were deleted (600 of 1000)"),
        (figures(rewritten=600), "60% of the files were rewritten (600 of 1000)"),
        (figures(created=300, deleted=300, renamed=300, suffix=".locked"), "names that end with .locked (300 of 1000)"),
        # Two signs, each of them half as strong as would be enough.
        (figures(rewritten=260, deleted=260), "deleted"),
        (figures(deleted=300, size_bytes=20 * MIB), "of the size is gone"),
        # Everything was cut to nothing.
        (figures(rewritten=900, transferred_bytes=0, literal_bytes=0, size_bytes=0), "rewritten"),
        # Only the first few kilobytes of large files were encrypted.
        (figures(rewritten=900, transferred_bytes=10**12, literal_bytes=900 * 4096), "rewritten"),
    ],
)
def test_an_attack_has_findings(attack: RunStats, finding: str) -> None:
    assert any(finding in text for text in anomaly.findings(attack))


def test_files_that_were_only_touched_are_not_rewritten() -> None:
    assert anomaly.findings(figures(rewritten=1000, literal_bytes=0)) == ()


def test_of_a_small_source_only_emptiness_is_a_finding() -> None:
    small = RunStats(files_before=3, files=3, transferred=3, transferred_bytes=9, literal_bytes=9)
    assert anomaly.findings(small) == ()
    assert anomaly.findings(replace(small, files=0, transferred=0)) != ()
    assert anomaly.findings(small, thresholds=AnomalyThresholds(minimum_files=1)) != ()


def test_the_baseline_of_a_source_is_no_finding() -> None:
    database = figures(rewritten=700)
    assert anomaly.findings(database) != ()
    assert anomaly.findings(figures(rewritten=800), [figures(), database]) == ()
    assert anomaly.findings(figures(rewritten=900), [figures(rewritten=100)]) != ()
    # Becoming empty is never usual.
    assert anomaly.findings(figures(deleted=1000), [database]) != ()
    assert anomaly.findings(figures(deleted=700), [database]) != ()


def test_the_operator_sets_the_thresholds() -> None:
    assert anomaly.findings(figures(rewritten=300), thresholds=AnomalyThresholds(rewritten_share=0.3)) != ()
    assert anomaly.findings(figures(rewritten=600), thresholds=AnomalyThresholds(rewritten_share=0.9)) == ()
    assert anomaly.findings(figures(deleted=1000), thresholds=AnomalyThresholds(enabled=False)) == ()


def test_a_quarter_rewritten_is_a_finding_where_files_became_random() -> None:
    assert anomaly.findings(figures(rewritten=300)) == ()
    assert anomaly.findings(figures(rewritten=300, sampled=40, became_random=9)) == ()
    assert anomaly.findings(figures(rewritten=40, sampled=40, became_random=40)) == (), "a few archives"
    found = anomaly.findings(figures(rewritten=300, sampled=40, became_random=36))
    assert len(found) == 2
    assert "36 of 40 sampled files" in found[1]
    assert anomaly.findings(figures(rewritten=300, sampled=5, became_random=5)) == (), "too few to tell"


def test_much_new_content_is_a_finding_only_beside_another_one() -> None:
    large = figures(rewritten=1, literal_bytes=95 * MIB, transferred_bytes=95 * MIB)
    assert large.replaced_share == 0.95
    assert anomaly.findings(large) == (), "one large file"
    assert anomaly.findings(figures(rewritten=300, literal_bytes=60 * MIB)) == ()
    assert len(anomaly.findings(figures(rewritten=300, literal_bytes=90 * MIB))) == 2
    grown = figures(created=300, size_bytes=190 * MIB, literal_bytes=90 * MIB)
    assert grown.replaced_share == 0
    assert anomaly.findings(figures(rewritten=300, literal_bytes=90 * MIB), [large]) == ()
