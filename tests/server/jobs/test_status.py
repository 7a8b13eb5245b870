from server.jobs.status import JobStatus


def test_every_state_has_a_phrase_and_only_the_last_ones_are_terminal() -> None:
    assert all(state.phrase for state in JobStatus)
    assert [state for state in JobStatus if state.is_terminal] == ["SUCCEEDED", "FAILED", "CANCELLED"]


def test_only_a_retry_follows_on_a_terminal_state_and_none_on_success() -> None:
    ended = [state for state in JobStatus if state.is_terminal]
    assert [(a, b) for a in ended for b in JobStatus if a.may_become(b)] == [
        ("FAILED", "QUEUED"),
        ("CANCELLED", "QUEUED"),
    ]
