"""Transcript files: plain, compressed or in an archive; what is none is an error that names it."""

import gzip
import io
import json
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async.interop import transcripts
from memvid_async.interop.transcripts import (
    Transcript,
    TranscriptError,
    open_transcripts,
    parse_runs,
    short_label,
)
from tests.support.chats import runs_of, same

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": "It is a cat."},
]


def read_all(name: str, data: bytes, max_bytes: int) -> None:
    for part in open_transcripts(name, data, max_bytes):
        parse_runs(part)


def tar_of(members: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param([{"traj": CHAT, "task_id": 1}, {"messages": CHAT}], 2, id="list of runs"),
        pytest.param([CHAT, CHAT, []], 3, id="list of bare runs"),
        pytest.param({"messages": CHAT, "info": {}}, 1, id="one run"),
        pytest.param(CHAT, 1, id="bare messages"),
        pytest.param({"traj": [], "messages": "notes"}, 1, id="the key that holds a list"),
        pytest.param([], 0, id="no runs"),
    ],
)
def test_json_documents(value, expected):
    runs = runs_of(value)
    assert len(runs) == expected
    assert same([run.value for run in runs], value if expected != 1 else [value])


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\n\n"])
def test_json_lines_of_runs(newline):
    values = [{"messages": CHAT, "n": 1}, CHAT, {"traj": []}]
    runs = runs_of(newline.join(json.dumps(v).encode() for v in values) + newline)
    assert same([run.value for run in runs], values)
    assert [run.number for run in runs] == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_json_lines_of_messages_are_one_run(count):
    (run,) = runs_of("\n".join(map(json.dumps, CHAT[:count])).encode())
    assert same(run.value, CHAT[:count])


def test_a_byte_order_mark_is_no_part_of_the_json():
    (run,) = runs_of(b"\xef\xbb\xbf" + json.dumps(CHAT).encode())
    assert same(run.value, CHAT)


def test_gzip_and_tar_in_every_combination():
    plain = json.dumps(CHAT).encode()
    lines = b"\n".join([plain, plain])
    members = {"a/one.json": plain, "a/two.jsonl": lines, "three.ndjson.gz": gzip.compress(lines)}
    names = ["a.tar:a/one.json", "a.tar:a/two.jsonl", "a.tar:three.ndjson.gz"]
    for archive in (tar_of(members), gzip.compress(tar_of(members)), tar_of(members, "w:gz")):
        assert [part.name for part in open_transcripts("a.tar", archive)] == names
        assert len(runs_of(archive)) == 5
    assert same(runs_of(gzip.compress(plain))[0].value, CHAT)


def test_only_regular_documents_of_a_tar_are_read():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for kind, name in [
            (tarfile.SYMTYPE, "link.json"),
            (tarfile.LNKTYPE, "hard.json"),
            (tarfile.CHRTYPE, "device.json"),
            (tarfile.FIFOTYPE, "pipe.json"),
            (tarfile.DIRTYPE, "folder.json"),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name in ("README.md", "._hidden.json", "../../escape.json"):
            info = tarfile.TarInfo(name)
            info.size = 2
            archive.addfile(info, io.BytesIO(b"[]"))
    assert [p.name for p in open_transcripts("t", out.getvalue())] == ["t:../../escape.json"]


def tar_of_headers(kind: bytes, body: bytes, count: int) -> bytes:
    """A tar whose one member has very many headers that say more of it."""
    header = tarfile.TarInfo("a.json")
    header.type, header.size = kind, len(body)
    more = header.tobuf(tarfile.USTAR_FORMAT) + body.ljust(512, b"\0")
    return more * count + tar_of({"a.json": b"[]"})


def sparse_tar(size: int) -> bytes:
    """A tar whose one member is a hole of the given size, in the old GNU format."""
    header = bytearray(tarfile.TarInfo("hole.json").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + bytes(1024)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b" \n\n", "is empty", id="blank"),
        pytest.param(b"\xff\xfe\x00", "byte 0 is not UTF-8", id="binary"),
        pytest.param(b"hello", "not JSON", id="text"),
        pytest.param(b'{"messages": [', "not JSON", id="cut short"),
        pytest.param(b'[\n{"role": "user"},\n', "not JSON", id="cut short after lines"),
        pytest.param(b"[" * 100_000, "nested too deep", id="deep"),
        pytest.param(gzip.compress(b"[]" * 99)[:-9], "damaged gzip", id="cut gzip"),
        pytest.param(gzip.compress(b"x")[:-8] + bytes(8), "damaged gzip", id="gzip checksum"),
        pytest.param(b"\x1f\x8bnothing", "damaged gzip", id="only looks like gzip"),
        pytest.param(
            tar_of({"a.json": b"[]" * 999})[:900], "ends in the middle|damaged tar", id="cut tar"
        ),
        pytest.param(
            tar_of({"a.txt": b"[]"}), "holds no regular file", id="tar without transcripts"
        ),
        pytest.param(
            tar_of({"a.json": b"{"}), "chat.json:a.json: not JSON", id="tar with a bad member"
        ),
        pytest.param(gzip.compress(bytes(200_000)), "more than 100000 bytes", id="large"),
        pytest.param(
            tar_of({"a.json.gz": gzip.compress(bytes(200_000))}), "100000 bytes", id="large member"
        ),
        pytest.param(
            tar_of({f"{n}.json.gz": gzip.compress(b"[" + b" " * 30_000 + b"]") for n in range(4)}),
            "3.json.gz: holds more than",
            id="large together",
        ),
        pytest.param(sparse_tar(10**9), "hole.json: holds more than", id="sparse"),
    ],
)
def test_a_file_that_is_no_transcript(data, message):
    with pytest.raises(TranscriptError, match=message) as caught:
        read_all("chat.json", data, 100_000)
    assert str(caught.value).startswith("chat.json")


@given(st.binary(max_size=300), st.sampled_from(["", "gzip", "tar", "damaged tar"]))
def test_any_bytes_are_a_transcript_or_the_named_error(data, wrapping):
    if wrapping == "gzip":
        data = b"\x1f\x8b\x08" + data
    elif wrapping == "tar":
        data = tar_of({"a.json": data})
    elif wrapping == "damaged tar":
        whole = tar_of({"a.json": b"[]", "b.json": b"[]"})
        data = whole[:512] + data + whole[512 + len(data) :]
    with suppress(TranscriptError):
        read_all("chat", data, 10_000)


def test_a_bad_run_is_named_and_the_others_are_read():
    good = json.dumps({"messages": CHAT})
    runs = runs_of(f'{good}\n{{"messages": [\n{good}\n7\n{{"messages": null}}\n'.encode())
    assert [isinstance(run, TranscriptError) for run in runs] == [False, True, False, True, True]
    assert str(runs[1]).startswith("chat.json, run 1: line 2 is not JSON")
    assert "chat.json, run 3: not a run" in str(runs[3])


def test_names_from_an_archive_are_made_printable():
    (part,) = open_transcripts("t\x1b[2J", tar_of({"\x1b]0;x\x07\udcff.json": b"[]"}))
    assert part.name == "t\\u001b[2J:\\u001b]0;x\\u0007\\udcff.json"


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("gpt-4o-airline.json.gz", "gpt-4o-airline"),
        ("task-1/first.traj.json", "task-1/first"),
        ("run_2026-01-02T10:20:30.json", "run_2026-01-02T10:20:30"),
        ("notes", "notes"),
        (".json", ".json"),
    ],
)
def test_short_label(source, label):
    assert short_label(source) == label


def test_a_transcript_of_its_own_is_told_from_a_list_of_runs():
    assert parse_runs(Transcript("a", b"[[]]", "a"))[0].alone
    assert not parse_runs(Transcript("a", b"[[], []]", "a"))[0].alone


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (tarfile.GNUTYPE_LONGNAME, b"name\0"),
        (tarfile.GNUTYPE_LONGLINK, b"name\0"),
        (tarfile.XHDTYPE, b"11 path=ab\n"),
        (tarfile.XGLTYPE, b"11 path=ab\n"),
    ],
)
def test_a_tar_of_very_many_headers_in_a_row_is_refused(kind, body):
    with pytest.raises(TranscriptError, match="too many headers"):
        list(open_transcripts("a.tar", tar_of_headers(kind, body, 5000)))


def test_an_archive_of_very_many_members_is_refused(monkeypatch):
    monkeypatch.setattr(transcripts, "MAX_MEMBERS", 10)
    few = tar_of({f"{n}.json": b"[]" for n in range(10)})
    assert len(list(transcripts.open_transcripts("a.tar", few))) == 10
    for name in ("{}.json", "{}.txt"):
        many = tar_of({name.format(n): b"[]" for n in range(11)})
        with pytest.raises(TranscriptError, match="more than 10 members"):
            list(transcripts.open_transcripts("a.tar", many))
