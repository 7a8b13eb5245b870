import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.conftest import Data
from tests.workers.corpus.test_prepare import decode
from workers.contract.manifests import VALIDATION, ShardsManifest, identity, read_shards
from workers.contract.sources import CorpusError
from workers.corpus.prepare import prepare
from workers.corpus.shards import Shards
from workers.corpus.validation import is_held_out

Write = Callable[..., str]
DOCUMENTS = [f"Number {number} is here. It rains {number} times." for number in range(60)]


def both(folder: Path) -> tuple[list[str], list[str]]:
    """Return the documents that are learned and those that are held out, each as one text."""
    return tuple([" ".join(d) for d in decode(Shards(each))] for each in (folder, folder / VALIDATION))  # type: ignore[return-value] # a pair


def test_a_share_is_split_off_by_document_and_nothing_is_lost(write_text: Write, tmp_path: Path) -> None:
    source = write_text("\n\n".join(DOCUMENTS))
    learned, held_out = both(prepare(Data([source], 90, validation=0.3), tmp_path))
    assert sorted(learned + held_out) == sorted(
        both(prepare(Data([source], 90, validation=[write_text(TEA, "b.txt")]), tmp_path))[0]
    )
    assert 8 <= len(held_out) <= 28


TEA = "Tea is hot. Milk is cold.\n\nRain falls. Snow falls.\n"


def test_the_same_documents_are_held_out_whatever_files_they_lie_in(write_text: Write, tmp_path: Path) -> None:
    words = write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"0123456789", "number"]), "vocab.txt")
    shuffled = random.Random(3).sample(DOCUMENTS, len(DOCUMENTS))
    one = [write_text("\n\n".join(DOCUMENTS), "all.txt")]
    two = [write_text("\n\n".join(part), name) for part, name in ((shuffled[:7], "b.txt"), (shuffled[7:], "a.txt"))]
    first, second = (both(prepare(Data(files, words, validation=0.3), tmp_path)) for files in (one, two))
    assert [sorted(part) for part in first] == [sorted(part) for part in second]


@given(st.lists(st.binary()), st.floats(0.01, 0.98))
def test_a_larger_share_holds_all_of_a_smaller_one(document: list[bytes], share: float) -> None:
    assert is_held_out(document, share) <= is_held_out(document, share + 0.01)


def test_files_of_their_own_are_held_out_with_the_vocabulary_of_the_text_that_is_learned(
    write_text: Write, tmp_path: Path
) -> None:
    corpus, apart = write_text("\n\n".join(DOCUMENTS)), write_text("Zebras graze. Zebras sleep.", "b.txt")
    folder = prepare(Data([corpus], 90, validation=[apart]), tmp_path)
    assert (folder / "vocab.txt").read_bytes() == (folder / VALIDATION / "vocab.txt").read_bytes()
    assert (folder / "vocab.txt").read_bytes() == (prepare(Data([corpus], 90), tmp_path) / "vocab.txt").read_bytes()
    assert len(both(folder)[0]) == len(DOCUMENTS)
    assert len(both(folder)[1]) == 1


def test_what_is_held_out_is_part_of_the_identity(write_text: Write, tmp_path: Path) -> None:
    corpus = [write_text("\n\n".join(DOCUMENTS))]
    choices = [None, 0.3, 0.31, [write_text("Tea. Milk.", "b.txt")], [write_text("Tea. Milk. Rain.", "c.txt")]]
    folders = [prepare(Data(corpus, 90, validation=choice), tmp_path) for choice in choices]
    assert len(set(folders)) == len({identity(folder) for folder in folders}) == len(choices)


def test_without_held_out_text_the_manifest_is_that_of_older_versions(write_text: Write, tmp_path: Path) -> None:
    folder = prepare(Data([write_text(TEA)], 60), tmp_path)
    assert VALIDATION not in (folder / "manifest.json").read_text()
    assert not (folder / VALIDATION).exists()
    assert set(ShardsManifest.model_fields) - set(read_shards(folder).model_fields_set) == {VALIDATION}


def test_held_out_text_that_was_changed_or_lost_is_prepared_anew(write_text: Write, tmp_path: Path) -> None:
    data = Data([write_text("\n\n".join(DOCUMENTS))], 90, validation=0.3)
    folder = prepare(data, tmp_path)
    before = (folder / VALIDATION / "manifest.json").read_bytes()
    (folder / VALIDATION / "manifest.json").write_bytes(before.replace(b'"documents": ', b'"documents": 1'))
    with pytest.raises(CorpusError, match="not the text that was kept from training"):
        read_shards(folder)
    assert prepare(data, tmp_path) == folder
    assert (folder / VALIDATION / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(("text", "share"), [("\n\n".join(DOCUMENTS), 1e-9), ("One document. Alone.", 1e-9)])
def test_a_share_that_is_none_of_the_documents_is_refused(
    write_text: Write, tmp_path: Path, text: str, share: float
) -> None:
    with pytest.raises(CorpusError, match=r"data\.validation: 1e-09 of the .* is none of them; give a larger share"):
        prepare(Data([write_text(text)], 60, validation=share), tmp_path)


def test_a_share_that_leaves_nothing_to_learn_is_refused(write_text: Write, tmp_path: Path) -> None:
    vocab = write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ntea", "vocab.txt")
    with pytest.raises(CorpusError, match=r"data\.validation: 0\.999999 of the 2 documents .* is all of them"):
        prepare(Data([write_text(TEA)], vocab, validation=0.999999), tmp_path)


def test_validation_files_without_text_are_refused(write_text: Write, tmp_path: Path) -> None:
    data = Data([write_text(TEA)], 60, validation=[write_text("\n \n", "blank.txt")])
    with pytest.raises(CorpusError, match=r"data\.validation: .*blank\.txt: holds no text"):
        prepare(data, tmp_path)


def test_a_file_that_is_also_learned_is_refused_even_as_a_copy(write_text: Write, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"data\.validation: .*copy\.txt is a file of data\.corpus, too"):
        prepare(Data([write_text(TEA)], 60, validation=[write_text(TEA, "copy.txt")]), tmp_path)
