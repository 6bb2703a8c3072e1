"""The one token and the one exception by which work is cancelled, at both ends."""

from __future__ import annotations

import pytest

from ezpz.agent.common.cancel import Cancelled, CancelToken


def test_a_token_raises_only_once_it_was_cancelled() -> None:
    token = CancelToken()
    token.raise_if_cancelled()
    assert not token.is_cancelled
    token.cancel()
    token.cancel()
    assert token.is_cancelled
    with pytest.raises(Cancelled):
        token.raise_if_cancelled()


def test_it_takes_no_lock() -> None:
    """A signal handler that takes a lock can meet the code that it interrupts holding it."""
    assert set(vars(CancelToken())) == {"_is_cancelled"}
