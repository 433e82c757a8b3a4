"""Counts, sizes and durations as people read them, in terminals and on pages."""

from datetime import timedelta

_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DURATION_UNITS = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1)))


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 file`` or ``5,000 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(size_bytes: float) -> str:
    """Return the size with its unit: ``512 B``, ``1.5 KiB``, ``20.0 GiB``, ``120 GiB``."""
    value, unit = float(size_bytes), _SIZE_UNITS[0]
    for unit in _SIZE_UNITS:
        if value < 1000 or unit == _SIZE_UNITS[-1]:
            break
        value /= 1024
    return f"{value:.1f} {unit}" if unit != _SIZE_UNITS[0] and value < 100 else f"{value:.0f} {unit}"


def duration(span: timedelta) -> str:
    """Return the duration in two units: ``40 s``, ``6 min 40 s``, ``1 h 6 min``."""
    seconds = max(round(span.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def rough_duration(span: timedelta) -> str:
    """Return the duration in its largest unit: ``3 h``. A span below a minute is ``a moment``."""
    for unit, length in _DURATION_UNITS:
        if span >= 2 * length or (span >= length and unit != "d"):
            return f"{span // length} {unit}"
    return "a moment"
