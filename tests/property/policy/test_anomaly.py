"""Findings for whatever a source does: its habits are none, and more of an attack never has fewer."""

import os
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as with_thresholds

from turku.policy import anomaly
from turku.policy.anomaly import AnomalyThresholds, RunStats

counts = st.integers(0, 2000)


@st.composite
def figures(draw: st.DrawFn) -> RunStats:
    before = draw(counts)
    deleted = draw(st.integers(0, before))
    created = draw(counts)
    rewritten = draw(st.integers(0, before - deleted))
    size_before = before * draw(st.integers(1, 10_000))
    sampled = draw(st.integers(0, 64))
    return RunStats(
        files_before=before,
        files=before - deleted + created,
        created=created,
        transferred=created + rewritten,
        renamed=draw(st.integers(0, created)),
        suffix=".x",
        size_bytes_before=size_before,
        size_bytes=draw(st.integers(0, 2 * size_before + 1000)),
        transferred_bytes=(created + rewritten) * 5000,
        literal_bytes=draw(st.integers(0, (created + rewritten) * 5000)),
        sampled=sampled,
        became_random=draw(st.integers(0, sampled)),
    )


@given(figures())
def test_shares_are_shares(found: RunStats) -> None:
    for share in (found.shrunk_share, found.replaced_share, found.random_share, found.share(found.rewritten)):
        assert 0 <= share <= 1


@given(figures())
def test_a_habit_of_a_source_is_no_finding_but_that_it_is_empty_or_shrank(found: RunStats) -> None:
    findings_of = anomaly.findings(found, [found])
    assert not findings_of or found.files == 0 or all("of the size is gone" in finding for finding in findings_of)


@given(figures())
def test_a_first_backup_and_one_of_a_source_without_anomaly_detection_never_have_findings(found: RunStats) -> None:
    assert anomaly.findings(replace(found, files_before=0)) == ()
    assert anomaly.findings(found, thresholds=AnomalyThresholds(enabled=False)) == ()


@given(figures(), st.floats(0.01, 1))
def test_higher_thresholds_find_no_more(found: RunStats, share: float) -> None:
    low = AnomalyThresholds(
        deleted_share=share,
        rewritten_share=share,
        renamed_share=share,
        shrunk_share=share,
        replaced_share=share,
        random_share=share,
    )
    high = with_thresholds(low, **dict.fromkeys(("deleted_share", "rewritten_share", "renamed_share"), 1.0))
    high = with_thresholds(high, shrunk_share=1.0, replaced_share=1.0, random_share=1.0)
    if anomaly.findings(found, thresholds=high):
        assert anomaly.findings(found, thresholds=low)


@given(figures())
def test_encrypted_content_takes_no_finding_away(found: RunStats) -> None:
    if anomaly.findings(replace(found, became_random=0)):
        assert anomaly.findings(found)


@given(st.integers(anomaly.RANDOM_MINIMUM_BYTES, 70_000))
def test_random_content_looks_so_and_text_does_not(length: int) -> None:
    assert anomaly.looks_random(os.urandom(length))
    assert not anomaly.looks_random(b"The quick brown fox jumps over the lazy dog. "[: length % 40 + 5] * length)
    assert not anomaly.looks_random(bytes(length))
