from server.cli.local import training_command
from workers.contract.documents import parse_spec
from workers.contract.spec.job import JobSpec


def _spec(workers: object) -> JobSpec:
    phase = {"seq_len": 32, "global_batch_size": 32, "micro_batch_size": 8, "steps": 2, "lr": 0.01}
    parallel = {"workers": workers}
    return parse_spec({"name": "t", "data": {"corpus": ["builtin:austen"]}, "phases": [phase], "parallel": parallel})


def test_one_worker_trains_in_one_process() -> None:
    command = training_command(["job.yaml"], _spec(1))
    assert command[1:] == ["-m", "workers.train", "job.yaml"]


def test_several_workers_are_started_by_torchrun() -> None:
    command = training_command(["job.yaml", "--run", "runs/t", "--json"], _spec(2))
    assert command[1:] == ["-m", "workers.torchrun", "2", "job.yaml", "--run", "runs/t", "--json"]


def test_a_range_of_workers_trains_on_the_most_that_divide_the_batch() -> None:
    command = training_command(["job.yaml"], _spec({"min": 1, "max": 3}))
    assert command[1:4] == ["-m", "workers.torchrun", "2"]
