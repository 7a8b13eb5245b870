from tests.server.client import results


def test_the_types_of_results_are_what_the_api_describes() -> None:
    assert results.FILE.read_text() == results.text(), "run `python -m tests.server.client.results`"
