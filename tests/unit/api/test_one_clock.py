"""The coordinator has one clock, which a simulated fleet (bench/fleet.py) replaces: nobody reads another, and no
statement asks the database for the time."""

import re

from tests.support import markdown

_OTHER_CLOCKS = re.compile(
    r"\b(datetime|date|timezone)\.(now|utcnow|today)\(|\btime\.(time|time_ns)\(|\bauto_now|\bNow\(\)"
    r"|\bnow\(\)::|CURRENT_TIMESTAMP|CURRENT_DATE|clock_timestamp|\blocaltime\(\)|\bSELECT now\("
)


def test_time_is_read_from_the_clock_alone() -> None:
    source = markdown.REPOSITORY / "src" / "turku"
    files = [path for part in ("api", "policy", "protocol") for path in (source / part).rglob("*.py")]
    assert len(files) > 60
    found = [
        f"{path.relative_to(source)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if _OTHER_CLOCKS.search(line)
    ]
    assert found == []


def test_other_clocks_are_recognised() -> None:
    for line in ("x = datetime.now(UTC)", "time.time()", "Now()", "SET date = CURRENT_TIMESTAMP", "timezone.now()"):
        assert _OTHER_CLOCKS.search(line)
