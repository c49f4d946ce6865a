"""What a profile may say, and what is answered when it is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_graphs

from modelbuild.errors import BuildError
from modelbuild.profile import parse_profile, read_profile

REVISION = "0123456789abcdef0123456789abcdef01234567"


def hub(revision: str = REVISION, repository: str = "owner/name") -> dict[str, str]:
    return {"type": "hub", "repository": repository, "revision": revision}


def test_a_right_profile_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(tiny_graphs.profile()))
    profile = read_profile(file)
    assert (profile.name, profile.kind, profile.dimension) == ("Tiny Model", "embedding", 32)
    assert profile.languages == ("fr",)
    assert profile.raw == tiny_graphs.profile()


def test_a_reranker_needs_no_pooling_prefixes_or_dimension() -> None:
    assert parse_profile(tiny_graphs.profile("reranker", activation="sigmoid")).dimension is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": None}, "name is missing"),
        ({"licence": None}, "licence is missing"),
        ({"dimension": None}, "dimension is missing"),
        ({"kind": "generator"}, "kind is 'generator', expected one of embedding, reranker"),
        ({"route": "onnx"}, "route is 'onnx', expected one of sentence-transformers, transformers, prebuilt"),
        ({"pooling": "max"}, "pooling is 'max', expected one of mean, cls"),
        ({"normalize": "yes"}, "normalize is 'yes', expected true or false"),
        ({"max_length": "512"}, "max_length is '512', expected a whole number from 8 to 32768"),
        ({"max_length": True}, "max_length is True"),
        ({"max_length": 4}, "max_length is 4"),
        ({"prefixes": {"document": "d: "}}, "expected texts for query and passage"),
        ({"default_input_type": "passage", "prefixes": {"query": "q"}}, "'passage', which prefixes does not have"),
        ({"languages": "ko"}, "languages is 'ko', expected a list of texts"),
        ({"file": "../model.onnx"}, "expected an .onnx file's path inside the snapshot"),
        ({"dimensions": 384}, "dimensions is not a field of a profile, did you mean dimension"),
        ({"source": {"type": "s3"}}, "an object whose type is one of hub, folder, demo"),
        ({"source": {"type": "folder", "path": "models/x"}}, "expected an absolute path"),
        ({"source": {"type": "folder"}}, "expected the fields type, path"),
        ({"source": {"type": "demo", "builder": "e6"}}, "expected a builder out of e5, reranker"),
        ({"source": {"type": "demo", "builder": "reranker"}}, "makes another kind"),
        ({"source": hub("main")}, "a commit hash of 40 hexadecimal digits, not a branch"),
        ({"source": {**hub(), "revision": None}}, "expected a pinned revision"),
        ({"source": hub(repository="just-a-name")}, "expected a repository like owner/name"),
        ({"source": hub(), "remote_code": "somebody/else"}, "expected the repository's name 'owner/name'"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BuildError) as error:
        parse_profile({**tiny_graphs.profile(), **changes}, "embedding.json")
    assert said in str(error.value)
    assert "embedding.json" in str(error.value)


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(BuildError) as error:
        parse_profile(tiny_graphs.profile(pooling="max", normalize=1, licence=None))
    for name in ("pooling", "normalize", "licence"):
        assert name in str(error.value)


def test_fields_of_an_embedding_are_refused_for_a_reranker() -> None:
    with pytest.raises(BuildError, match="pooling has no meaning for a reranker"):
        parse_profile(tiny_graphs.profile("reranker", pooling="mean"))


def test_an_unreadable_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"nothing\.json cannot be read"):
        read_profile(tmp_path / "nothing.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BuildError, match=r"broken\.json is not JSON"):
        read_profile(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(BuildError, match="list instead of an object"):
        read_profile(tmp_path / "list.json")
