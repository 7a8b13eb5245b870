import pytest
import torch
from torch import nn
from torch.optim import SGD

from benchmarks.contenders import CONTENDERS, GROUP, Contender, missing

OWN = [name for name, contender in CONTENDERS.items() if contender.package is None]


@pytest.mark.parametrize("name", OWN)
def test_a_contender_of_torch_or_ours_moves_its_parameters(name: str) -> None:
    assert missing(name, CONTENDERS[name]) is None
    parameter = nn.Parameter(torch.ones(300))
    parameter.grad = torch.ones(300)
    CONTENDERS[name].make([parameter]).step()
    assert (parameter < 1).all()


def test_a_contender_that_is_not_installed_says_how_to_get_it() -> None:
    problem = missing("someone's Lamb", Contender(SGD, package="a_package_of_nobody"))
    assert problem == f"someone's Lamb is not measured: a_package_of_nobody is not installed; get it with: {GROUP}"
