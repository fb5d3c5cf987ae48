"""The words, and what they mean."""

from __future__ import annotations

import pytest

from qhana_taskstate import StatusError
from qhana_taskstate.states import check_status, is_terminal, with_error_word


@pytest.mark.parametrize("word", [None, "PENDING", "SUCCESS", "ERROR"])
def test_words_of_the_contract_are_accepted(word: str | None) -> None:
    assert check_status(word) == word


def test_failure_means_error() -> None:
    assert check_status("FAILURE") == "ERROR"


@pytest.mark.parametrize("word", ["", "RETRY", "success", "UNKNOWN", 1, b"SUCCESS"])
def test_any_other_word_is_a_value_error_that_names_it(word: object) -> None:
    with pytest.raises(StatusError, match="is no task status") as caught:
        check_status(word)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    assert repr(word) in str(caught.value)


@pytest.mark.parametrize(("word", "ends"), [(None, False), ("PENDING", False), ("SUCCESS", True), ("REVOKED", True)])
def test_every_word_but_pending_ends(word: str | None, ends: bool) -> None:
    assert is_terminal(word) is ends


def test_only_the_two_error_words_are_replaced() -> None:
    assert [with_error_word(word, "FAILURE") for word in ("ERROR", "FAILURE", "SUCCESS", "REVOKED", None)] == [
        "FAILURE",
        "FAILURE",
        "SUCCESS",
        "REVOKED",
        None,
    ]
