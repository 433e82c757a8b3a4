"""Branches of the error tree: what callers catch and whether a request is worth another try."""

import pytest

from turku import errors
from turku.errors import ApiError, ApiRefused, RestoreError, TurkuError


@pytest.mark.parametrize(
    "kind", [errors.ApiRejected, errors.ApiForbidden, errors.ApiNotFound, errors.ApiThrottled, errors.ApiRefused]
)
def test_every_refusal_of_the_coordinator_is_caught_as_one_branch(kind: type[ApiRefused]) -> None:
    assert issubclass(kind, ApiRefused)
    assert issubclass(kind, ApiError)
    assert (kind.code, kind.exit_code) == ("api-refused", 77)


def test_each_branch_of_refusals_is_sent_with_its_status() -> None:
    sent = {kind.status: kind for kind in ApiRefused.__subclasses__()}
    assert sent == {
        400: errors.ApiRejected,
        403: errors.ApiForbidden,
        404: errors.ApiNotFound,
        429: errors.ApiThrottled,
    }


def test_a_restore_ends_with_one_branch() -> None:
    assert set(RestoreError.__subclasses__()) == {errors.RestoreIncomplete, errors.RestoreFailed}


def test_only_errors_of_the_request_itself_are_not_worth_another_try() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TurkuError)]
    assert {kind for kind in kinds if not kind.retryable} == {
        errors.UsageError,
        errors.InvalidValue,
        errors.MalformedMessage,
        errors.NotInHistory,
    }


def test_another_hint_leaves_the_rest_as_it_is() -> None:
    error = errors.ApiForbidden("refused", details="why", hint="old").with_hint("new")
    assert type(error) is errors.ApiForbidden
    assert (error.message, error.details, error.hint) == ("refused", "why", "new")


def test_no_code_means_two_things_and_every_exit_code_is_in_range() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TurkuError)]
    with_code = [kind for kind in kinds if "code" in vars(kind)]
    assert len({kind.code for kind in with_code}) == len(with_code)
    assert all(0 < kind.exit_code < 126 for kind in kinds)
    assert all(kind.__doc__ for kind in kinds)
