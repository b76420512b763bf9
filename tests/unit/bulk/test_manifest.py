"""Manifests: what a source names, which lines are refused, and how much memory that takes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from videoqa import errors
from videoqa.bulk import Manifest, Row
from videoqa.bulk.index.row_index import RowIndex
from videoqa.bulk.manifest.archive_root import ArchiveRoot
from videoqa.bulk.manifest.manifest import (
    _FIELDS,
    DIGEST_KEY,
    PARTS,
    Digester,
    compare_digests,
)
from videoqa.contract import JobRequest
from videoqa.storage import ObjectStore

ASK = {"questions": ["What is it?"], "priority": "bulk"}


def rows(*sources: str | Path, options: Mapping[str, Any] = {}, **defaults: Any) -> list[Row]:
    names = [str(source) for source in sources]
    with Manifest(names, defaults=ASK | defaults, store=ObjectStore(), **options) as manifest:
        with RowIndex() as index:
            count = manifest.check(index)
        found = list(manifest.rows())
    assert len(found) == count
    return found


def refused(*sources: str | Path, **defaults: Any) -> str:
    with pytest.raises(errors.ManifestRefused) as caught:
        rows(*sources, **defaults)
    return caught.value.message


def ids(found: list[Row]) -> list[str]:
    return [row.custom_id for row in found]


def url(row: Row) -> str:
    return row.request.inputs[0].url


def write(path: Path, *lines: str | Mapping[str, Any]) -> Path:
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a/z.MKV", "a/.hidden.mp4", "a/notes.txt", "ü (1)#.webm"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "videos"


def test_a_folder_gives_its_videos_by_their_relative_paths(folder: Path) -> None:
    found = rows(folder)
    assert ids(found) == ["b.mp4", "ü (1)#.webm", "a/z.MKV"]
    assert [url(row) for row in found] == [(folder / name).as_uri() for name in ids(found)]
    assert {row.request.priority for row in found} == {"bulk"}


def test_files_that_are_left_out_are_counted_by_suffix(folder: Path) -> None:
    for name in ("c.jpg", "a/d.JPG", "README", "a/e.mxf", "f.y4m"):
        (folder / name).write_bytes(b"")
    with Manifest([str(folder)], defaults={"questions": "What?"}, store=ObjectStore()) as manifest:
        for _ in range(2):  # each listing counts anew
            assert [Path(url(row)).suffix for row in manifest.rows()] == [
                ".mp4", ".y4m", ".webm", ".mxf", ".MKV",
            ]  # fmt: skip
            assert manifest.walker.others == {".jpg": 2, ".txt": 1, "none": 1}


def test_a_glob_gives_what_it_matches_below_its_fixed_part(folder: Path) -> None:
    assert ids(rows(f"{folder}/**/*.M*")) == ["a/z.MKV"]
    assert ids(rows(f"{folder}/*.mp4")) == ["b.mp4"]
    assert "holds no video" in refused(f"{folder}/*.avi")


def test_several_videos_and_one_are_rows_by_their_names(folder: Path) -> None:
    names = [str(folder / "b.mp4"), "https://u:p@example.com/a.mp4?sig=secret"]
    found = rows(*names)
    assert found[0].custom_id == names[0]
    assert found[1].custom_id.startswith("https://example.com/a.mp4#")
    assert url(found[1]) == names[1]
    assert ids(rows(names[0])) == ["b.mp4"]


def test_a_list_gives_a_row_a_line_relative_to_its_own_folder(folder: Path) -> None:
    path = write(folder / "list.txt", "b.mp4", "", "  s3://bucket/c d.mp4  ")
    found = rows(path)
    assert [url(row) for row in found] == [(folder / "b.mp4").as_uri(), "s3://bucket/c d.mp4"]
    assert ids(found) == ["b.mp4", "s3://bucket/c d.mp4"]


def test_stdin_is_read_once_for_both_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b'/v/a.mp4\n{"custom_id": "b", "url": "s3://v/b.mp4", "question": "Who?"}\n'
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    found = rows("-")
    assert ids(found) == ["/v/a.mp4", "b"]
    assert found[1].request.questions[0].text == "Who?"


def test_lines_of_jsonl_override_the_run_and_fill_the_rest_from_it(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.jsonl",
        {"custom_id": "short", "url": "clips/a.mp4", "start": 1, "end": 2.5},
        {"custom_id": "picture", "url": "a.png"},
        {
            "custom_id": "full",
            "inputs": ["x.mp4", {"url": "s3://b/y.mp4"}],
            "questions": [{"id": "k", "text": "Same?"}],
            "sampling": {"frames": 2},
            "metadata": {"mine": "1"},
        },
    )
    short, picture, full = rows(path, sampling={"method": "fps", "fps": 2}, tenant="t")
    assert short.request.inputs[0].model_dump() == {
        "kind": "video",
        "url": (tmp_path / "clips/a.mp4").as_uri(),
        "start": 1,
        "end": 2.5,
    }
    assert short.request.sampling.fps == 2
    assert picture.request.inputs[0].kind == "image"
    assert full.request.sampling.model_dump(exclude_defaults=True) == {"frames": 2}
    assert (full.request.questions[0].id, full.request.tenant) == ("k", "t")
    assert full.request.metadata == {"mine": "1", DIGEST_KEY: full.digest}


def test_columns_of_csv_are_fields_and_empty_cells_the_runs_defaults(tmp_path: Path) -> None:
    text = (
        "\ufeffurl,custom_id,question,frames,fps,end,max_new_tokens\n"
        'a.mp4,one,"What,\nnow?",4,,,\n'
        "\n"
        "s3://b/c.mp4,,,,2,3.5,7\n"
    )
    (tmp_path / "m.csv").write_text(text)
    one, two = rows(tmp_path / "m.csv")
    assert ids([one, two]) == ["one", "s3://b/c.mp4"]
    assert one.request.questions[0].text == "What,\nnow?"
    assert one.request.sampling.frames == 4
    assert two.request.questions[0].text == "What is it?"
    assert two.request.sampling.fps == 2
    assert two.request.generation.max_new_tokens == 7
    assert two.request.inputs[0].model_dump()["end"] == 3.5


def test_other_columns_of_csv_are_metadata_of_the_row(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("url,shelf no.,colour,\na.mp4,17,,\nb.mp4,,red,x\n")
    one, two = rows(tmp_path / "m.csv")
    assert one.request.metadata == {"shelf no.": "17", DIGEST_KEY: one.digest}
    assert two.request.metadata == {"colour": "red", DIGEST_KEY: two.digest}


def test_all_wrong_lines_are_refused_at_once_by_their_numbers(tmp_path: Path) -> None:
    good = {"custom_id": "a", "url": "s3://b/a.mp4"}
    path = write(
        tmp_path / "m.jsonl",
        good,
        "{nope",
        "[1]",
        {"inputs": ["s3://b/a.mp4", "s3://b/b.mp4"]},
        good,
        {"custom_id": "f", "url": "s3://b/f.mp4", "frams": 3},
        {"custom_id": "g", "url": "s3://b/g.mp4", "output": "s3://b/{job_id}"},
        {"custom_id": "h", "url": "ftp://b/g.mp4"},
        {"custom_id": "i" * 256, "url": "s3://b/i.mp4"},
        {"custom_id": 7, "url": "s3://b/i.mp4"},
        {"custom_id": "j", "url": "s3://b/i.mp4", "question": " "},
    )
    with path.open("ab") as file:
        file.write(b'{"custom_id": "\xff"}\n')
    told = refused(path).splitlines()
    assert told[0] == f"{path}: 11 lines are wrong, nothing was started"
    numbers = [line.strip().partition(":")[0] for line in told[1:]]
    assert numbers == [f"line {n}" for n in range(2, 13)]
    text = "\n".join(told)
    for says in (
        "is not JSON", "got list", "got no custom_id", "'a' is already that of line 1", "frams",
        "got output", "'ftp'", "250 bytes", "custom_id:", "empty question", "not UTF-8",
    ):  # fmt: skip
        assert says in text, says


@pytest.mark.parametrize("fields", [{"url": ""}, {"inputs": [""]}, {"inputs": {"url": ""}}])
def test_an_empty_url_is_not_the_manifests_folder(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = write(tmp_path / "m.jsonl", {"custom_id": "a"} | fields)
    assert "line 1: inputs.0" in refused(path)


def test_of_many_wrong_lines_the_first_ones_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", *["{"] * 1000)
    told = refused(path).splitlines()
    assert len(told) == 22
    assert told[-1].strip() == "and 980 more"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"custom_id\na\n", "line 1: got the columns"),
        (b"url;frames\na.mp4;4\n", "separated by semicolons: save it with commas"),
        (b"url\tframes\na.mp4\t4\n", "separated by tabs: save it with commas"),
        (b"url,url\na.mp4,b.mp4\n", "expected each name once"),
        (b"url,frame\na.mp4,4\n", "the column 'frame', which resembles frames"),
        (b"url,videoqa.caption\na.mp4,x\n", "line 2: got the metadata videoqa.caption"),
        (b"url,frames\na.mp4,x\nb.mp4,3\nc.mp4\n", "line 2: got a cell that is not a number"),
        (b"url,frames\na.mp4,4\nc.mp4\n", "line 3: got 1 cells, expected 2"),
        (b"url,frames\n,4\n", "line 2: got no url"),
        (b"url\na.mp4\n\xff.mp4\n", "line 3: is not CSV in UTF-8"),
        (b'url\na.mp4\n"b\n', "is not CSV"),
        (b"", "line 1: got the columns"),
    ],
)
def test_wrong_csv_is_refused(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "m.csv").write_bytes(text)
    assert says in refused(tmp_path / "m.csv")


def test_a_source_that_is_none_is_refused(tmp_path: Path) -> None:
    for name in ("none", "m.xlsx"):
        (tmp_path / "m.xlsx").write_bytes(b"")
        with pytest.raises(errors.InvalidRequest, match="expected"):
            rows(tmp_path / name)


def test_a_path_that_is_too_long_for_a_name_gets_a_short_one_of_its_own(tmp_path: Path) -> None:
    deep = tmp_path / "d"
    for n in range(2):
        path = deep / "/".join(["f" * 100] * 3) / f"{n}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    one, two = ids(rows(deep))
    assert one != two
    assert one.endswith("/0.mp4")
    assert len(one.encode()) <= 250


def test_only_what_decides_an_answer_is_in_the_digest_and_each_change_in_its_part(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "m.jsonl", {"custom_id": "a", "url": "s3://b/a.mp4"})
    segments = {"method": "segment", "segment_s": 5}
    before = rows(path, sampling=segments)[0].digest

    def changed(**fields: Any) -> tuple[str, ...]:
        return compare_digests(before, rows(path, **{"sampling": segments, **fields})[0].digest)

    assert changed(timeout_s=9.0, tenant="t", priority="interactive") == ()
    assert changed(questions=["Who?"]) == ("question",)
    assert changed(summary="What happens?") == ("question",)
    assert changed(system="Answer in French.") == ("question",)
    assert changed(refine="Shorten it.") == ("question",)
    assert changed(answer=["yes", "no"]) == ("question",)
    assert changed(sampling={"frames": 3}) == ("settings",)
    assert changed(generation={"max_new_tokens": 3}, model="org/m") == ("model", "settings")
    write(path, {"custom_id": "a", "url": "s3://b/a.mp4", "start": 1})
    assert changed() == ("input",)
    assert compare_digests("something", before) == PARTS


def test_a_new_field_of_a_request_is_in_the_digest_or_changes_no_answer() -> None:
    decide = {"inputs"}.union(*_FIELDS.values())
    others = {
        "cache", "custom_id", "idempotency_key", "max_attempts", "metadata", "output", "priority", "replaces",
        "result_ttl_s", "sheet", "start_by", "stream", "tags", "tenant", "timeout_s", "webhook",
    }  # fmt: skip
    assert decide.isdisjoint(others)
    assert decide | others == JobRequest.model_fields.keys()


def test_a_digest_does_not_depend_on_the_rows_before() -> None:
    """`Digester` keeps parts from one row to the next; it must not show."""
    one, image = 's3://b/ü "1".mp4', "s3://b/p.png"
    clip = {"url": one, "start": 1, "end": 2.5}
    fields: list[dict[str, Any]] = [
        {"inputs": [one], "questions": ["What?"]},
        {"inputs": [clip, image], "questions": ["What?"]},
        {"inputs": [one], "questions": ["What?"], "model": "org/m"},
        {"inputs": [one], "questions": ["Who?", {"id": "k", "text": "ü?"}]},
        {"inputs": [one], "questions": ["Who?"], "sampling": {"frames": 4}},
        {"inputs": [one], "questions": ["Who?"], "generation": {"temperature": 1, "stop": ["a"]}},
        {"inputs": [one], "questions": ["Who?"], "system": "Be brief."},
        {"inputs": [one], "questions": ["Who?"], "answer": ["he", "she"]},
    ]
    root = ArchiveRoot("s3://other/")
    digester = Digester(root)
    requests = [JobRequest.model_validate(each) for each in [*fields, fields[0]]]
    found = [digester.digest(request) for request in requests]
    assert found == [Digester(root).digest(request) for request in requests]
    assert len(set(found)) == len(fields)


MEASURED = """
import sys
from pathlib import Path
from videoqa.bulk.manifest.manifest import Manifest
from videoqa.bulk.index.row_index import RowIndex
from videoqa.storage.objects import ObjectStore

def peak_bytes():
    # Not ru_maxrss: that begins with the peak of whoever started this.
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024

def read(path):
    defaults = {"questions": ["What?"]}
    with Manifest([path], defaults=defaults, store=ObjectStore()) as manifest, RowIndex() as index:
        index.add_results((row.custom_id, "1") for row in manifest.rows())
        return manifest.check(index)

read(sys.argv[1])
before = peak_bytes()
print(read(sys.argv[2]), peak_bytes() - before)
"""


@pytest.mark.timeout(400)  # 6 s of CPU time; a busy machine takes minutes for them
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_thousand_rows_take_no_more_memory_than_a_few(tmp_path: Path) -> None:
    """Measures the whole process with SQLite's cache: both passes, and the names of stored results."""
    few, many = tmp_path / "few.jsonl", tmp_path / "many.jsonl"
    for path, count in ((few, 100), (many, 100_000)):
        with path.open("w") as file:
            for n in range(count):
                file.write(
                    f'{{"custom_id": "clips/{n:06}.mp4", "url": "s3://bucket/{n:06}.mp4"}}\n'
                )
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, few, many], capture_output=True, text=True, check=True
    )
    count, grown_bytes = map(int, done.stdout.split())
    assert count == 100_000
    assert grown_bytes < 4 << 20, grown_bytes  # a dict of the ids alone: 10 MB
