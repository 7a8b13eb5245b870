"""What workers and control plane say to each other, also across versions."""

import pytest
from pydantic import ValidationError

from workers.contract.push import Command, ControlPlane, Push, PushReply, Refusal

LOG = {"kind": "log", "seq": 1, "time": "2026-01-01T00:00:00Z", "text": "hello"}


def test_a_push_carries_records_and_its_attempt_which_older_versions_do_not_name() -> None:
    assert Push.model_validate({"records": [LOG]}).attempt is None
    pushed = Push.model_validate({"records": [LOG], "attempt": 2})
    assert (pushed.attempt, pushed.records[0].seq) == (2, 1)
    with pytest.raises(ValidationError):
        Push.model_validate({"records": [LOG | {"kind": "gossip"}]})


def test_only_making_way_pause_and_stop_end_an_attempt() -> None:
    assert [command for command in Command if command.ends_the_run] == [Command.MAKE_WAY, Command.PAUSE, Command.STOP]


def test_a_reply_without_a_command_asks_nothing_and_a_refusal_may_name_no_record() -> None:
    assert PushReply.model_validate_json('{"acknowledged": 7}').command is Command.NONE
    assert PushReply.model_validate_json('{"acknowledged": 7, "command": "stop"}').command is Command.STOP
    assert Refusal.model_validate_json('{"title": "no", "status": 422}').seq is None


def test_where_to_push_is_written_and_read_back() -> None:
    control = ControlPlane(url="http://127.0.0.1:8000/v1/jobs/1qx92r16q7na/events", token="t")
    assert ControlPlane.model_validate_json(control.model_dump_json()) == control
