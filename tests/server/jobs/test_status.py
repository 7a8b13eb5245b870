from server.jobs.status import JobStatus


def test_every_state_has_a_phrase_and_only_the_last_ones_are_terminal() -> None:
    assert all(state.phrase for state in JobStatus)
    assert [state for state in JobStatus if state.is_terminal] == ["SUCCEEDED", "FAILED", "CANCELLED"]


def test_nothing_follows_on_a_terminal_state() -> None:
    ended = [state for state in JobStatus if state.is_terminal]
    assert not [(a, b) for a in ended for b in JobStatus if a.may_become(b)]
