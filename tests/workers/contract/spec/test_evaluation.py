import pytest

from tests.workers.contract.spec.small import spec
from workers.contract.problems import SpecError

DATA = {"corpus": ["builtin:austen"], "validation": 0.1}


@pytest.mark.parametrize("field", ["every_steps", "sequences"])
def test_an_evaluation_of_nothing_or_never_is_refused(field: str) -> None:
    with pytest.raises(SpecError, match=rf"evaluation\.{field} = 0: is less than 1"):
        spec(data=DATA, evaluation={field: 0})
