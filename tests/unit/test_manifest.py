"""What an archive's manifest may be, and what is refused before anything starts."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from videoqa import errors
from videoqa.bulk import Row, checked, read_rows
from videoqa.objects import ObjectStore

ASK = {"questions": ["What is it?"]}


def rows(source: Path | str) -> list[Row]:
    return list(read_rows(str(source), ObjectStore()))


def refusal(source: Path | str) -> str:
    with pytest.raises(errors.InvalidRequest) as caught:
        checked(rows(source), ASK)
    return caught.value.message


def test_a_folder_is_its_videos_by_their_paths(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/x.MKV", "notes.txt", "a/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = rows(tmp_path)
    assert [row.custom_id for row in found] == ["a/x.MKV", "b.mp4"]
    assert found[1].fields == {"inputs": [(tmp_path / "b.mp4").as_uri()]}
    assert checked(found, ASK) == 2
    assert [row.custom_id for row in rows(f"{tmp_path}/*.mp4")] == [f"{tmp_path}/b.mp4"]


def test_a_list_of_paths_and_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "clips/a.mp4\n\n# not this\n s3://b/k.mp4 \n"
    (tmp_path / "list.txt").write_text(text)
    found = rows(tmp_path / "list.txt")
    assert [(row.number, row.custom_id) for row in found] == [
        (1, "clips/a.mp4"),
        (4, "s3://b/k.mp4"),
    ]
    assert found[0].fields["inputs"] == [(tmp_path / "clips/a.mp4").as_uri()]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert [row.fields for row in rows("-")] == [row.fields for row in found]


def test_lines_of_json_are_requests_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps({"custom_id": "one", "url": "a.mp4"}) + "\n"
        + json.dumps({"custom_id": "two", "url": "s3://b/k.mp4", "question": "Why?"}) + "\n"
        + json.dumps({"custom_id": "three", "inputs": ["s3://b/p.png"], "sampling": {"frames": 2}})
    )  # fmt: skip
    found = [row.request(ASK) for row in rows(path)]
    assert [request.questions[0].text for request in found] == [
        "What is it?",
        "Why?",
        "What is it?",
    ]
    assert found[0].inputs[0].url == (tmp_path / "a.mp4").as_uri()
    assert found[2].sampling.frames == 2
    assert checked(rows(path), ASK) == 3


def test_a_table_has_columns_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("url,custom_id,question,start,end\ns3://b/k.mp4,one,Why?,1.5,3\na.mp4,,,,\n")
    first, second = (row.request(ASK) for row in rows(path))
    assert first.inputs[0].model_dump() == {
        "kind": "video", "url": "s3://b/k.mp4", "start": 1.5, "end": 3.0,
    }  # fmt: skip
    assert (second.custom_id, second.questions[0].text) == ("a.mp4", "What is it?")
    path.write_text("address,custom_id\nx,y\n")
    assert "1: got the columns ['address', 'custom_id']" in refusal(path)


def test_all_bad_rows_are_named_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"custom_id": "one", "url": "s3://b/k.mp4"}
    lines = [
        json.dumps(good), "{", json.dumps([1]), json.dumps({"url": "s3://b/k"}), json.dumps(good),
        json.dumps({"custom_id": "x", "url": "ftp://h/x"}),
        json.dumps({"custom_id": "y", "url": "s3://b/k", "surprise": 1}),
    ]  # fmt: skip
    path.write_text("\n".join(lines))
    message = refusal(path)
    assert message.startswith("6 of 7 rows are wrong, nothing was started:\n  2: no JSON")
    for part in (
        "3: got list, expected an object",
        "4: got no custom_id",
        "5: custom_id 'one' came before",
        "6: inputs.0.url",
        "7: surprise: unknown field",
    ):
        assert part in message
    path.write_text("\n".join(["{"] * 100))
    assert refusal(path).endswith("and 80 more")


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    for source in (tmp_path / "clip.mp4", tmp_path / "never.jsonl", "s3://b/key"):
        with pytest.raises(errors.InvalidRequest, match="expected a folder, a glob"):
            rows(source)
    assert refusal(tmp_path / "*.mkv") == "got no video, expected at least one"


def test_a_long_manifest_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as out:
        for n in range(20_000):
            out.write(json.dumps({"custom_id": f"row-{n}", "url": f"s3://b/{n}.mp4"}) + os.linesep)
    tracemalloc.start()
    try:
        assert checked(read_rows(str(path), ObjectStore()), ASK) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
    finally:
        tracemalloc.stop()
