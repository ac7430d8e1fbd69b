"""Plain English in comments, docstrings and pages, and one meaning for each word of the design."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "memvid_async"
FOLDERS = ("src", "tests", "benchmarks", "fuzz", "scripts")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])

# A pattern that is looked for in every line, whatever its case; what to write; and an example.
STUMBLES = {
    r"\bbehind\b": ("after", "the zeros behind the log"),
    r"\bso (many|much)\b": ("at most N, this many", "a batch takes so many frames"),
    r"\b(gives|gave)\b(?! up)": ("returns, passes", "it gives the frame's id"),
    r"\bputs? ([\w']+ ){0,3}in line\b": ("stages, appends", "puts the segment in line"),
    r"\bin the place of\b": ("replaces, instead of", "put in the place of the old file"),
    r"\banew\b": ("again, a new one", "it is folded anew"),
    r"\bwhoever\b": ("the process, the task, the reader that", "wakes whoever waits"),
    r"\bevery so (often|many)\b": ("regularly, every N", "looks every so often"),
    r"\bnow and then\b": ("from time to time", "saved now and then"),
    r"\b(lets?|letting) (it |them |the (lock|interpreter) )?go\b": ("releases", "lets the lock go"),
    r"\bone an? (line|row|page|run|call|session)\b": ("one per line", "the ids, one a line"),
    r"(?<!here )\b(is|are) no (?!longer|more|other)\w": ("is not a", "when it is no text"),
}

# The classes and modules that may have a word of docs/design.md's table in their name, because they
# use it as the table says. "Search index" and "command line" are terms of their own.
NAMES = {
    "event": "NoteEvent DecidedEvent Event EventLog LostEvents event event_documents event_log",
    "sequence": "",
    "index": "DamagedSearchIndexError KeyIndex SearchIndex key_index search_index",
    "offset": "",
    "log": """
        EventLog FileLog JournalLog LogCopy LogFile LogJournal StreamLog event_log file_log
        journal_log log_copy log_file stream_log
    """,
    "command": "CommandIntake CommandLine command_intake command_line commands",
    "fold": "_Fold",
    "projection": "ProjectionPages ProjectionSaver SavedProjection projection projection_saver",
    "toc": "Toc toc",
    "catalog": "Catalog catalog",
    "segment": "Segment SegmentKind segment",
    "row": "UsageRow RowPlace action_rows call_rows fork_rows frame_rows keyed_rows rows",
    "session": """
        ChangeSession DeleteSession EndSession EndedSessions NoActiveSessionError OpenSession
        RecordedSession SessionChanged SessionResumed SessionSuspended
        PastSession ResumeSession ResumedSession ResumedStoreSession ServedSession Session
        SessionCalls SessionLocks SessionNames session_names
        session_calls session_lock SessionActiveError SessionBlocks SessionDeleted
        SessionEnded SessionEndedError SessionInfo SessionMap SessionNotFoundError SessionPlan
        SessionRecorder SessionStarted SessionState SessionSummary Sessions StartSession
        StoreSession SyncServedSession SyncSession
        store_session session_map session_recorder session_state sessions
        MemvidSession MemvidSessionStore openai_session session_page TakesSession
    """,
    "action": """
        Action ActionDraft ActionKind ActionList ActionQuery ActionRecorded ActionRecorder
        ActionStarted ChangedAction DecidedAction PackedActions RecordAction StartAction
        _ActionValues
        action_draft action_recorder action_rows finding_actions packed_actions
    """,
    "checkpoint": """
        Checkpoint CheckpointCreated CheckpointDetails CheckpointNotFoundError CreateCheckpoint
    """,
    "content": """
        Content ContentNotFoundError ContentStored Contents LargeContent StoredContent
        NewContents new_contents content contents
    """,
    "frame": """
        Frame FrameDeleted FrameErased FrameFields FrameFilters FrameItem FrameNotFoundError
        FramePlace FramePut FrameReader FrameStore FrameUpdated FramesPut IndexedFrame NewFrame
        decide_frames frame_reader frame_rows frame_store frames prepare_frames
        WhyFrame
    """,
    "view": "FileView StoreView SyncStoreView View file_view views",
    "subscription": "Subscription SyncSubscription subscription",
    "follower": "Follower follower",
}


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are written for people: comments, docstrings, the text of a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        code = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
        text = code.sub(lambda block: "\n" * block[0].count("\n"), text)
        yield from enumerate(re.sub(r"`[^`\n]*`", "``", text).split("\n"), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        # A string that is a statement: a docstring, or the description below a field.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, str):
                yield from enumerate(value.split("\n"), node.lineno)


def stumbles(path: Path) -> list[str]:
    return [
        f"{path.name}:{line}: {text.strip()!r}; write: {instead}"
        for line, text in prose(path)
        for pattern, (instead, _) in STUMBLES.items()
        if re.search(pattern, text, re.IGNORECASE)
    ]


def defined_words() -> list[str]:
    """The words that docs/design.md defines."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    section = text.split("\n## Words\n")[1].split("\n## ")[0]
    return [word.lower() for word in re.findall(r"^\| (\w+) \|", section, re.MULTILINE)[1:]]


def words_of(name: str) -> set[str]:
    """The words in a name, in lower case, as they are and in the singular."""
    words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
    return words | {word.removesuffix("s") for word in words}


@cache
def names() -> dict[str, list[str]]:
    """Every class and module of the package, and the files where each is defined."""
    found = defaultdict(list)
    for path in sorted(SOURCE.rglob("*.py")):
        where = str(path.relative_to(SOURCE))
        if path.stem not in ("__init__", "__main__"):
            found[path.stem].append(where)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(where)
    return found


def test_comments_docstrings_and_pages_are_plain():
    assert [found for path in (*MODULES, *PAGES) for found in stumbles(path)] == []


@pytest.mark.parametrize("pattern", STUMBLES)
def test_every_stumble_is_found_wherever_it_is_written(pattern, tmp_path):
    _, example = STUMBLES[pattern]
    module, page = tmp_path / "module.py", tmp_path / "page.md"
    module.write_text(
        f'"""{example}"""\n# {example}\nplain = "{example}"\n'
        f'class A:\n    a: int\n    """{example}"""\n'
    )
    page.write_text(f"{example}\n`{example}`\n```\n{example}\n```\n")
    assert [line.split(":")[1] for line in sorted(stumbles(module))] == ["1", "2", "6"]
    assert [line.split(":")[1] for line in stumbles(page)] == ["1"]


@pytest.mark.parametrize("word", defined_words())
def test_a_word_has_one_meaning_in_names(word):
    found = {name for name in names() if word in words_of(name)}
    assert found <= set(NAMES[word].split()), f"is {word!r} used as docs/design.md says?"


def test_a_class_name_stands_for_one_thing():
    found = defaultdict(list)
    for name, places in names().items():
        found[name.lstrip("_")] += places
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
