"""Questions to an operator, and options that answer them: the fate of a history, and approval."""

import re
from datetime import datetime, timedelta

from django.utils import timezone

from turku.core.cli import person
from turku.core.log import one_line
from turku.errors import InvalidValue, UsageError
from turku.policy.timing import moments

FATES = "keep, trash, or keep-until=2027-01-31"
_DAYS = re.compile(r"(\d{1,5}) ?d(?:ays?)?", re.ASCII)
_LONGEST_DAYS = 36500


def day_ahead(text: str, *, now: datetime) -> datetime:
    """Return the end of the day that the text names, such as ``2027-01-31`` or ``90 days``. Raises UsageError."""
    if match := _DAYS.fullmatch(text.strip().lower()):
        moment = now + timedelta(days=min(int(match[1]), _LONGEST_DAYS))
    else:
        try:
            moment = moments.parse(text, now=now, zone=timezone.get_current_timezone())
        except InvalidValue as error:
            raise UsageError(error.message, hint="a day, such as 2027-01-31, or a time from now, such as 90d") from None
    if moment <= now:
        raise UsageError(f"{one_line(text)} is not in the future")
    return moment


def end_of_history(text: str, *, now: datetime) -> datetime | None:
    """Return the moment until which storages keep the history. None is for ever, and now is the trash.

    Raises UsageError.
    """
    word = text.strip().lower()
    if word in ("keep", "forever"):
        return None
    if word == "trash":
        return now
    return day_ahead(re.sub(r"\Akeep-until[ =:]*", "", word), now=now)


def require_approval(question: str, *, is_given: bool) -> None:
    """Raise UsageError unless approval is given by option, or by the person at the terminal."""
    if not is_given and not person.says_yes(question):
        raise UsageError("nothing was changed")
